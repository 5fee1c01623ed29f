"""How well the world's captioners tell what a scene shows: `python -m comat.shapes.recipe.captioner_measure`.

By the classes that the pipeline trains with. The default run's captioner is measured by `measure`.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch

from comat.captioners import Captioner
from comat.captioners.load import load_captioner
from comat.params import SHOWS, CaptionerKind, OneCaptioner
from comat.shapes.recipe.captioner import SIDE
from comat.shapes.recipe.data import CATEGORIES, clean_examples, images
from comat.shapes.world.captions import describe
from comat.shapes.world.scenes import Spec

HELD_OUT = 1000
"""Seeds from here on are used by no training set."""
BATCH = 50


def swap_attributes(spec: Spec) -> Spec:
    """The colours of the first two groups exchanged."""
    a, b, *rest = spec.groups
    return replace(spec, groups=(replace(a, colour=b.colour), replace(b, colour=a.colour), *rest))


def swap_relation(spec: Spec) -> Spec:
    """Subject and object of the relation exchanged."""
    return replace(spec, groups=spec.groups[::-1])


def change_quantity(spec: Spec) -> Spec:
    """One becomes two, and many become one."""
    first, *rest = spec.groups
    return replace(spec, groups=(replace(first, count=2 if first.count == 1 else 1), *rest))


CORRUPTIONS: dict[str, tuple[str, Callable[[Spec], Spec]]] = {
    "attribute": ("color", swap_attributes),
    "relation": ("spatial", swap_relation),
    "quantity": ("counting", change_quantity),
}
"""Eq. 7's three, each with the category of scenes that it is asked of."""


def world_captioner(kind: CaptionerKind, folder: Path, **asked: str) -> Captioner:
    own = OneCaptioner(captioner=kind, captioner_model=str(folder), captioner_revision=None, **asked)
    return load_captioner(own, torch.device("cpu"), torch.float32)


def preferences(captioner: Captioner, count: int = 500) -> dict[str, float]:
    """Share of clean scenes whose true caption is likelier than the corrupted one, by corruption."""
    result = {}
    for name, (category, corrupt) in CORRUPTIONS.items():
        weights = tuple(int(c == category) for c in CATEGORIES)
        examples = clean_examples(count, seed=HELD_OUT + 1, weights=weights)
        seen = images(examples, SIDE).float() / 255
        true = _log_likelihood(captioner, seen, [e.caption for e in examples])
        false = _log_likelihood(captioner, seen, [describe(corrupt(e.spec)) for e in examples])
        result[name] = (true > false).double().mean().item()
    return result


@torch.no_grad()
def _log_likelihood(captioner: Captioner, seen: torch.Tensor, texts: list[str]) -> torch.Tensor:
    found = []
    for start in range(0, len(texts), BATCH):
        log_p, counts = captioner.log_likelihood(seen[start : start + BATCH], texts[start : start + BATCH])
        found.append(log_p.masked_fill(~counts, 0).sum(1))
    return torch.cat(found)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    captioners = {
        "git": world_captioner("git", options.models / "git"),
        "vlm": world_captioner("vlm", options.models / "vlm"),
        "vqa": world_captioner("vlm", options.models / "vlm", captioner_question=SHOWS, captioner_answer="Yes"),
    }
    result = {name: preferences(captioner) for name, captioner in captioners.items()}
    options.out.write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
