"""The shapes world's oracle as a benchmark: exact, and no part of training."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from comat.judges.benchmark import Drawn, Score
from comat.shapes.world.captions import parse_prompt
from comat.shapes.world.oracle import judge
from comat.storage.images import read_rgb


def in_world(text: str) -> bool:
    """Whether a prompt is of the shapes world."""
    try:
        parse_prompt(text)
    except ValueError:
        return False
    return True


class Oracle:
    """1 for an image that shows everything its prompt asks for and nothing else, 0 for another.

    Details: `ignored`, an object is missing (concept ignorance); `mismatched`, all objects are there, but one has
    another colour or size (concept mismatching).
    """

    def __init__(self) -> None:
        self.name = "oracle"
        self.evaluators: dict[str, str] = {}

    def covers(self, image: Drawn) -> bool:
        return in_world(image.text)

    def scores(self, images: Sequence[Drawn], folder: Path) -> Iterator[Score]:
        for image in images:
            verdict = judge(read_rgb(folder / image.path), parse_prompt(image.text))
            details = {"ignored": float(verdict.ignores), "mismatched": float(verdict.mismatches)}
            yield Score(float(verdict.correct), details)
