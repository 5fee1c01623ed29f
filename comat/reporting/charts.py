"""Where things stand in a chart; the templates draw it as SVG, in percent of its width and height."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from matplotlib.ticker import MaxNLocator


@dataclass(frozen=True)
class Axis:
    """A linear axis from `low` to `high` with round ticks."""

    low: float
    high: float
    ticks: tuple[float, ...]

    @classmethod
    def around(cls, values: Sequence[float]) -> Axis:
        """The axis that holds all finite `values`, with about four intervals between ticks."""
        finite = [value for value in values if math.isfinite(value)] or [0.0]
        ticks = [float(tick) for tick in MaxNLocator(4, min_n_ticks=2).tick_values(min(finite), max(finite))]
        return cls(ticks[0], ticks[-1], tuple(ticks))

    def place(self, value: float) -> float:
        """Percent of the way from `low` to `high`."""
        return round(100 * (value - self.low) / (self.high - self.low), 2)


@dataclass(frozen=True)
class LineChart:
    """Series over one x axis; `lines` maps a name to the points of an SVG polyline in a box of 100 x 100.

    With a `window` above 1 they are running means over so many values, and `faint` are the values themselves.
    """

    title: str
    x: Axis
    y: Axis
    lines: Mapping[str, str]
    faint: Mapping[str, str]
    window: int


def line_chart(title: str, x: Sequence[float], series: Mapping[str, Sequence[float]], window: int = 1) -> LineChart:
    """Lay out series of equal length over `x`, smoothed over `window`; values that are not finite are left out."""
    across = Axis.around(x)
    across = Axis(min(x), max(x) if max(x) > min(x) else min(x) + 1, across.ticks)
    up = Axis.around([value for values in series.values() for value in values])

    def points(values: Sequence[float]) -> str:
        placed = zip(x, values, strict=True)
        return " ".join(f"{across.place(at):g},{100 - up.place(v):g}" for at, v in placed if math.isfinite(v))

    lines = {name: points(running_mean(values, window)) for name, values in series.items()}
    faint = {name: points(values) for name, values in series.items()} if window > 1 else {}
    ticks = tuple(tick for tick in across.ticks if across.low <= tick <= across.high)
    return LineChart(title, Axis(across.low, across.high, ticks), up, lines, faint, window)


def running_mean(values: Sequence[float], window: int) -> list[float]:
    """Of each value the mean with those before it, at most `window`, that are finite; nan where none is."""
    parts = ([v for v in values[max(0, i + 1 - window) : i + 1] if math.isfinite(v)] for i in range(len(values)))
    return [sum(part) / len(part) if part else math.nan for part in parts]
