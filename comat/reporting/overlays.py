"""Attention before and after, as the paper's Fig. 2: each token's activation, and where it looks."""

from __future__ import annotations

from pathlib import Path

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot as plt
from torch import Tensor

from comat.images import read_rgb


def attention_figure(entry: dict, maps: dict[str, Tensor], samples: Path, out: Path) -> None:
    """Draw one prompt: a bar for every token, and the maps of the entities' tokens over base and tuned image.

    Args:
        entry: a row of `attention.json`.
        maps: model → (L, h, w).
    """
    words = [i for i in range(1, len(entry["tokens"]) - 1)]
    shown = sorted({token for tokens in entry["entities"] for token in tokens})[:6] or words[:6]
    figure = plt.figure(figsize=(2 * (len(shown) + 1), 6.4), layout="constrained")
    grid = figure.add_gridspec(3, len(shown) + 1, height_ratios=[1.1, 1, 1])
    bars = figure.add_subplot(grid[0, :])
    for offset, model in ((-0.2, "base"), (0.2, "tuned")):
        peaks = [float(maps[model][i].max()) for i in words]
        bars.bar([x + offset for x in range(len(words))], peaks, 0.4, label=model)
    bars.set_xticks(range(len(words)), [entry["tokens"][i] for i in words])
    bars.set_ylabel("activation (max)")
    bars.legend(frameon=False)
    bars.set_title(entry["text"], fontsize=10)
    for row, model in enumerate(("base", "tuned"), start=1):
        image = read_rgb(samples / f"images/{model}/{entry['prompt_id']}-0.png")
        side = image.shape[0]
        for column in range(len(shown) + 1):
            axes = figure.add_subplot(grid[row, column])
            axes.imshow(image)
            axes.set_xticks([])
            axes.set_yticks([])
            if column == 0:
                axes.set_ylabel(model)
                continue
            token = shown[column - 1]
            heat = maps[model][token].numpy()
            axes.imshow(
                heat, extent=(-0.5, side - 0.5, side - 0.5, -0.5), alpha=0.65, cmap="inferno", interpolation="bilinear"
            )
            axes.set_title(entry["tokens"][token], fontsize=9)
    figure.savefig(out, dpi=90, metadata={"Software": None})
    plt.close(figure)
