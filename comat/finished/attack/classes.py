"""An attack on one model, class by class."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
import torch
from PIL import Image
from tqdm import tqdm

from comat.diffusion.sampling import decoded, sample_latents
from comat.errors import unbroken
from comat.finished.attack.relaxed import behind
from comat.finished.attack.search import PURPOSE, Attack, drawn_words
from comat.finished.attack.summary import KINDS
from comat.finished.attack.targets import Target
from comat.randomness import generator
from comat.reporting.grid import comparison_grid
from comat.storage.images import read_rgb, to_bytes, write_image
from comat.storage.tables import write_json

SHOWN = 6
"""Prompts in the picture, at most."""
ROWS = pa.schema(
    {
        "model": pa.string(),
        "class": pa.string(),
        "prompt": pa.string(),
        "kind": pa.string(),
        "text": pa.string(),
        "number": pa.int32(),
        "seen": pa.string(),
        "wrong": pa.bool_(),
    }
)


def run(model: str, attack: Attack, targets: Sequence[Target], samples: int, work: Path) -> list[dict]:
    """The rows of all classes, `samples` images of each kind; those of a class are in `work` as soon as it is done."""
    rows: list[dict] = []
    for number, target in enumerate(tqdm(targets, desc=f"attack {model}")):
        file = work / f"{model}-{number:05d}.json"
        if not file.exists():
            found = attacked(model, attack, target, samples, partial(first_image, work, model, number))
            with unbroken():
                write_json(file, found)
        rows += json.loads(file.read_text())
    return rows


def first_image(work: Path, model: str, number: int, kind: str) -> Path:
    """Where the first image of a class is kept, to be shown."""
    return work / f"{model}-{number:05d}-{kind}.png"


def attacked(model: str, attack: Attack, target: Target, samples: int, image: Callable[[str], Path]) -> list[dict]:
    """The rows of a prompt: images of it as it is, of random words behind it, and of those that were found.

    One whose first clean image is of another class already is not attacked, as in the published code: its clean rows
    alone.
    """
    label = attack.classifier.number(target.name)
    same = {"model": model, "class": target.name, "prompt": target.prompt}

    def judged(kind: str, texts: Sequence[str]) -> list[dict]:
        seen = _seen(attack, target, texts, image(kind))
        own = [same | {"kind": kind, "text": text, "number": number} for number, text in enumerate(texts)]
        names = [attack.classifier.names[at] for at in seen]
        mine = attack.classifier.names[label]
        return [row | {"seen": name, "wrong": name != mine} for row, name in zip(own, names, strict=True)]

    rows = judged("clean", [target.prompt] * samples)
    if rows[0]["wrong"]:
        return rows
    at_random = torch.zeros(attack.search.words, len(attack.words))
    for kind, weights in (("random", at_random), ("attack", attack.weights(target.prompt, label))):
        draws = [generator(attack.params.seed, PURPOSE, kind, target.prompt, number) for number in range(samples)]
        rows += judged(kind, [behind(target.prompt, drawn_words(weights, attack.words, rng)) for rng in draws])
    return rows


@torch.no_grad()
def _seen(attack: Attack, target: Target, texts: Sequence[str], first: Path) -> list[int]:
    """The class that an image of each text is of; image n of a class has the same noise in every kind and model."""
    found: list[int] = []
    for at in range(0, len(texts), attack.draw_batch):
        part = list(texts[at : at + attack.draw_batch])
        keys = [(target.prompt, number) for number in range(at, at + len(part))]
        z = sample_latents(attack.backbone, attack.params, part, keys, PURPOSE, attack.params.resolution)
        images = decoded(attack.backbone, z)
        found += attack.classifier(images.clamp(0, 1)).argmax(-1).tolist()
        if at == 0:
            write_image(first, Image.fromarray(to_bytes(images[0])))
    return found


def picture(rows: Sequence[Mapping], targets: Sequence[Target], work: Path) -> Image.Image | None:
    """The first image of prompts whose class both models drew: base beside tuned, attacked below."""
    first = {(row["model"], row["class"], row["prompt"], row["kind"]): row for row in rows if row["number"] == 0}
    shown = [
        (number, target)
        for number, target in enumerate(targets)
        if all((model, target.name, target.prompt, "attack") in first for model in ("base", "tuned"))
    ][:SHOWN]
    if not shown:
        return None
    texts = [
        "; ".join(f"{m}: {first[m, one.name, one.prompt, 'attack']['text']}" for m in ("base", "tuned"))
        for _, one in shown
    ]
    images: dict[str, list[np.ndarray]] = {
        kind: [read_rgb(first_image(work, model, number, kind)) for number, _ in shown for model in ("base", "tuned")]
        for kind in KINDS
    }
    return comparison_grid(texts, images)
