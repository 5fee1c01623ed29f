"""Pages from templates: one file each, nothing fetched; and numbers as people read them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from jinja2 import Environment, PackageLoader, StrictUndefined

from comat.reporting.table import SCALES

Unit = Literal["%", ""]


def render(package: str, template: str, values: Mapping[str, object]) -> str:
    """The text of `templates/<template>` of a package with `values`; what stands in them is escaped."""
    environment = Environment(
        loader=PackageLoader(package),
        autoescape=lambda name: name is not None and ".html" in name,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {"score": score, "difference": difference, "figure": figure, "code": repr}
    return environment.get_template(template).render(values)


def unit_of(benchmark: str) -> Unit:
    """The unit in which a benchmark's score is shown."""
    return "%" if SCALES.get(benchmark, 100) == 100 else ""


def score(value: float, unit: Unit) -> str:
    """0.341 → "34.1%", or without a unit 31.2 → "31.20"."""
    return f"{value:.1%}" if unit else f"{value:.2f}"


def difference(value: float, unit: Unit) -> str:
    """0.259 → "+25.9" (points) where the unit is percent, 1.5 → "+1.50" where there is none."""
    return (f"{value * 100:+.1f}" if unit else f"{value:+.2f}").replace("-", "−")


def figure(value: float) -> str:
    """At most four significant digits, no trailing zeros."""
    return f"{value:.4g}".replace("-", "−")
