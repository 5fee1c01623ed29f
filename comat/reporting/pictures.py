"""All pictures of an evaluation, by its main benchmark."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from comat.randomness import python_random, stratified
from comat.reporting.grid import pair_grid
from comat.reporting.overlays import attention_figure
from comat.reporting.pairs import Shown
from comat.storage.images import read_rgb
from comat.storage.tables import read_legend, read_safetensors, write_bytes


def draw_pictures(shown: Shown, count: int, seed: int, base: Path, tuned: Path, out: Path) -> None:
    """Write `grid.png`, `got_better.png`, `got_worse.png` and `attention-<i>.png` to `out/pictures`.

    The grid shows `count` pairs, drawn by seed from their categories, whoever wins them.
    `base` and `tuned` are the folders of samples, with the attention maps.
    """
    pictures = out / "pictures"
    pictures.mkdir(parents=True, exist_ok=True)
    scores = [shot.score for pair in shown.every for shot in pair.shots.values()]
    some = stratified(shown.every, count, lambda pair: pair.category, python_random(seed, "grid"))
    judged = {"got_better": shown.gains, "got_worse": shown.losses} if shown.benchmark else {}
    for name, pairs in {"grid": some, **judged}.items():
        if pairs:
            pair_grid(pairs, (min(scores), max(scores)) if judged else None).save(pictures / f"{name}.png")
    for number, (_, picture) in enumerate(attention_pictures(base, tuned)):
        write_bytes(pictures / f"attention-{number}.png", picture)


def attention_pictures(base: Path, tuned: Path, *, dark: bool = False) -> Iterator[tuple[str, bytes]]:
    """The prompts whose attention maps were kept, each with its figure as a PNG."""
    folders = {"base": base, "tuned": tuned}
    maps = {model: read_safetensors(folder / "attention.safetensors") for model, folder in folders.items()}
    for entry in read_legend(base):
        id = entry["prompt_id"]
        own = {model: found[id] for model, found in maps.items()}
        images = {model: read_rgb(folder / f"images/{id}-0.png") for model, folder in folders.items()}
        words = range(1, len(entry["tokens"]) - 1)
        shown = sorted({token for tokens in entry["entities"] for token in tokens}) or words
        yield entry["text"], attention_figure(entry["text"], entry["tokens"], shown[:6], own, images, dark=dark)
