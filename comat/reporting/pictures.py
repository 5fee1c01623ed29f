"""All pictures of an evaluation."""

from __future__ import annotations

import json
from pathlib import Path

from comat.evaluation.run import SCORES, paired
from comat.images import read_rgb
from comat.params import Params
from comat.reporting.grid import pair_grid
from comat.reporting.overlays import attention_figure
from comat.store import IMAGE_INDEX, read_safetensors, read_table


def draw_pictures(params: Params, samples: Path, out: Path) -> None:
    """Write `grid.png` (pairs as they come), `gains.png`, `losses.png`, `attention-<i>.png` into `out/pictures`."""
    pictures = out / "pictures"
    pictures.mkdir(parents=True, exist_ok=True)
    texts = {row["prompt_id"]: row["text"] for row in read_table(samples / "index.parquet", IMAGE_INDEX)}
    pairs = paired(read_table(out / "scores.parquet", SCORES))
    chosen = {
        "grid": pairs[:: max(1, len(pairs) // params.evaluate.grid_pairs)],
        "gains": [p for p in pairs if p[1]["right"] > p[0]["right"]],
        "losses": [p for p in pairs if p[1]["right"] < p[0]["right"]],
    }
    for name, some in chosen.items():
        if some:
            pair_grid(some[: params.evaluate.grid_pairs], texts, samples).save(pictures / f"{name}.png")
    maps = read_safetensors(samples / "attention.safetensors")
    for number, entry in enumerate(json.loads((samples / "attention.json").read_text())):
        own = {model: maps[f"{model}/{entry['prompt_id']}"] for model in ("base", "tuned")}
        images = {model: read_rgb(samples / f"images/{model}/{entry['prompt_id']}-0.png") for model in own}
        words = range(1, len(entry["tokens"]) - 1)
        shown = sorted({token for tokens in entry["entities"] for token in tokens}) or words
        attention_figure(entry["text"], entry["tokens"], shown[:6], own, images, pictures / f"attention-{number}.png")
