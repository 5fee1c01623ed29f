"""Attention before and after, as the paper's Fig. 2: each token's activation, and where it looks."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib

matplotlib.use("Agg")
import numpy as np
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from torch import Tensor

COLOURS = {"base": "#5f6b78", "tuned": "#0b7a53"}
DARK_COLOURS = {"base": "#98a3ae", "tuned": "#35b985"}
"""As in the report, light and dark."""
DARK: dict[Any, str] = {
    "figure.facecolor": "#12161b",
    "axes.facecolor": "#12161b",
    "savefig.facecolor": "#12161b",
    **dict.fromkeys(("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color"), "#e6eaee"),
}
COLUMNS = 8
"""Tokens beside each other; further ones go below."""


def attention_figure(
    prompt: str,
    words: Sequence[str],
    shown: Sequence[int],
    maps: Mapping[str, Tensor],
    images: Mapping[str, np.ndarray],
    *,
    dark: bool = False,
) -> bytes:
    """A PNG with a bar for every token, and the maps of some over the image of each model, a token's on one scale.

    Args:
        words: the tokens as text, start and end included.
        shown: positions of the tokens whose maps are drawn.
        maps: model → (L, h, w).
        images: model → (H, W, 3) uint8.
        dark: light on dark, for pages in dark mode.
    """
    with plt.rc_context(DARK if dark else None):
        return _drawn(prompt, words, shown, maps, images, DARK_COLOURS if dark else COLOURS)


def _drawn(
    prompt: str,
    words: Sequence[str],
    shown: Sequence[int],
    maps: Mapping[str, Tensor],
    images: Mapping[str, np.ndarray],
    colours: Mapping[str, str],
) -> bytes:
    bands = [shown[at : at + COLUMNS] for at in range(0, len(shown), COLUMNS)]
    columns, rows = len(bands[0]) + 1, len(bands) * len(maps)
    figure = plt.figure(figsize=(2 * columns, 2 * rows + 2.4), layout="constrained")
    grid = figure.add_gridspec(rows + 1, columns, height_ratios=[1.1] + [1] * rows)
    _bars(figure.add_subplot(grid[0, :]), words, maps, colours)
    figure.suptitle(_as_text(prompt), fontsize=10, wrap=True)
    for row, (band, model) in enumerate(((band, model) for band in bands for model in maps), start=1):
        axes = figure.add_subplot(grid[row, 0])
        _overlay(axes, images[model])
        axes.set_ylabel(model)
        for column, token in enumerate(band, start=1):
            axes = figure.add_subplot(grid[row, column])
            strongest = max(float(own[token].max()) for own in maps.values())
            _overlay(axes, images[model], maps[model][token].numpy(), strongest)
            axes.set_title(_as_text(words[token]), fontsize=9)
    data = io.BytesIO()
    figure.savefig(data, dpi=90, metadata={"Software": None})
    plt.close(figure)
    return data.getvalue()


def _as_text(words: str) -> str:
    """Words in which a $ begins no formula; matplotlib's own switch for that does not reach where it wraps lines."""
    return words.replace("$", r"\$")


def _bars(axes: Axes, words: Sequence[str], maps: Mapping[str, Tensor], colours: Mapping[str, str]) -> None:
    inner = range(1, len(words) - 1)
    width = 0.8 / len(maps)
    for number, (model, own) in enumerate(maps.items()):
        places = [x + width * (number - (len(maps) - 1) / 2) for x in range(len(inner))]
        axes.bar(places, [float(own[i].max()) for i in inner], width, label=model, color=colours[model])
    labels = [_as_text(words[i]) for i in inner]
    axes.set_xticks(range(len(inner)), labels, rotation=0 if len(inner) < 20 else 60)
    axes.set_ylabel("activation (max)")
    axes.legend(frameon=False, ncols=2, loc="lower right", bbox_to_anchor=(1, 1), borderaxespad=0)  # over no bar


def _overlay(axes: Axes, image: np.ndarray, heat: np.ndarray | None = None, strongest: float = 1.0) -> None:
    axes.imshow(image)
    axes.set_xticks([])
    axes.set_yticks([])
    if heat is not None:
        side = image.shape[0] - 0.5
        extent = (-0.5, side, side, -0.5)
        axes.imshow(heat, extent=extent, vmin=0, vmax=strongest, alpha=0.65, cmap="inferno", interpolation="bilinear")
