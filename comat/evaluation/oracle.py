"""The shapes world's oracle as a benchmark: exact, and no part of training."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from tqdm import tqdm

from comat.images import read_rgb
from comat.shapes.captions import parse_prompt
from comat.shapes.oracle import judge


def oracle_scores(index: list[dict], folder: Path) -> Iterator[dict]:
    """One row of scores for every image of the index.

    `right`: everything the prompt asks for and nothing else. `ignored`: an object is missing (concept ignorance).
    `mismatched`: all objects are there, but one has another colour or size (concept mismatching).

    Raises:
        UserError: if an image is missing or unreadable.
        ValueError: if a prompt is not of the shapes world.
    """
    for entry in tqdm(index, desc="oracle"):
        verdict = judge(read_rgb(folder / entry["path"]), parse_prompt(entry["text"]))
        yield {
            **{key: entry[key] for key in ("model", "prompt_id", "category", "seed", "path")},
            "right": float(verdict.correct),
            "ignored": float(verdict.missing > 0),
            "mismatched": float(verdict.missing == 0 and not verdict.attributes),
        }
