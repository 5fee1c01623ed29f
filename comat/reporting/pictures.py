"""All pictures of an evaluation, by its main benchmark."""

from __future__ import annotations

from pathlib import Path

from comat.evaluation.scores import SCORES
from comat.evaluation.summary import by_benchmark, paired
from comat.images import read_rgb
from comat.params import Params
from comat.reporting.grid import pair_grid
from comat.reporting.overlays import attention_figure
from comat.store import read_legend, read_safetensors, read_table


def draw_pictures(params: Params, base: Path, tuned: Path, out: Path) -> None:
    """Write `grid.png` (pairs as they come), `gains.png`, `losses.png`, `attention-<i>.png` into `out/pictures`.

    Gains and losses of the first benchmark in `scores.parquet`, the largest first.
    """
    pictures = out / "pictures"
    pictures.mkdir(parents=True, exist_ok=True)
    scores = next(iter(by_benchmark(read_table(out / "scores.parquet", SCORES)).values()))
    values = [row["value"] for row in scores]
    pairs = paired(scores)
    ordered = sorted(pairs, key=_gain)
    chosen = {
        "grid": pairs[:: max(1, len(pairs) // params.evaluate.grid_pairs)],
        "gains": [pair for pair in reversed(ordered) if _gain(pair) > 0],
        "losses": [pair for pair in ordered if _gain(pair) < 0],
    }
    for name, some in chosen.items():
        if some:
            sheet = pair_grid(some[: params.evaluate.grid_pairs], (min(values), max(values)))
            sheet.save(pictures / f"{name}.png")
    _draw_attention(base, tuned, pictures)


def _gain(pair: tuple[dict, dict]) -> float:
    return pair[1]["value"] - pair[0]["value"]


def _draw_attention(base: Path, tuned: Path, pictures: Path) -> None:
    folders = {"base": base, "tuned": tuned}
    maps = {model: read_safetensors(folder / "attention.safetensors") for model, folder in folders.items()}
    for number, entry in enumerate(read_legend(base)):
        id = entry["prompt_id"]
        own = {model: found[id] for model, found in maps.items()}
        images = {model: read_rgb(folder / f"images/{id}-0.png") for model, folder in folders.items()}
        words = range(1, len(entry["tokens"]) - 1)
        shown = sorted({token for tokens in entry["entities"] for token in tokens}) or words
        attention_figure(entry["text"], entry["tokens"], shown[:6], own, images, pictures / f"attention-{number}.png")
