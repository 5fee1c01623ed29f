"""What every benchmark is: a judge of drawn images."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol


@dataclass(frozen=True)
class Drawn:
    """An image that a model drew of a prompt; `path` is below the folder of the samples."""

    model: str
    prompt_id: str
    text: str
    source: str
    category: str
    seed: int
    path: str


@dataclass(frozen=True)
class Answer:
    """What a judge answered to a question about an image, and whether it is as the prompt wants it."""

    question: str
    category: str  # of what is asked: entity, color, counting …
    answer: str
    right: bool | float  # or how probably, in [0, 1]


@dataclass(frozen=True)
class Score:
    """What a benchmark says of one image: a number, higher is better, and what it is made of."""

    value: float
    details: Mapping[str, float | str] = field(default_factory=dict)
    answers: tuple[Answer, ...] = ()


class Benchmark(Protocol):
    """Scores images one by one. `name` is its key in `metrics.json`; `evaluators` says which models judge.

    `evaluators` maps a role ("vqa", "detector") to "id@revision"; it is empty where arithmetic alone judges.
    """

    name: str
    evaluators: dict[str, str]

    def covers(self, image: Drawn) -> bool:
        """Whether the benchmark has something to say of this image's prompt."""
        ...

    def scores(self, images: Sequence[Drawn], folder: Path) -> Iterator[Score]:
        """A score for every image, in order.

        Raises:
            UserError: if an image is missing or unreadable.
        """
        ...


def evaluator(model: str, revision: str | None) -> str:
    """A judging model as results name it: "id@revision", or the folder alone."""
    return f"{model}@{revision}" if revision else model
