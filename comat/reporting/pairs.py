"""The pairs that people look at: the same prompt and the same noise, by the base and by the tuned model."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from comat.errors import UserError
from comat.evaluation.scores import SCORES
from comat.evaluation.summary import by_benchmark, paired
from comat.judges.benchmark import Drawn
from comat.storage.images import read_rgb
from comat.storage.tables import read_table

DATA = Path("data")
"""Where a project has what its stages make."""
LOOKED_AT = 8
"""Times as many pairs as are shown whose images are compared."""
SMALL, VISIBLE = 32, 4.0
"""Side in px at which images are compared, and the difference from which on it is seen."""


@dataclass(frozen=True)
class Shot:
    """One image, and what a benchmark says of it; higher is better."""

    path: Path
    score: float
    details: Mapping[str, Any]  # numbers and texts, and `questions`, each with its answer


@dataclass(frozen=True)
class Pair:
    """A prompt drawn from the same noise by both models."""

    prompt_id: str
    text: str
    category: str
    seed: int
    base: Shot
    tuned: Shot

    @property
    def gain(self) -> float:
        return self.tuned.score - self.base.score

    @property
    def shots(self) -> dict[str, Shot]:
        return {"base": self.base, "tuned": self.tuned}


@dataclass(frozen=True)
class Shown:
    """All pairs of a benchmark, those of them that are shown, and how many either model wins.

    Without a benchmark nobody wins: every score is 0 and means nothing, and some pairs stand among the gains.
    """

    benchmark: str | None
    every: Sequence[Pair]
    gains: Sequence[Pair]
    losses: Sequence[Pair]
    won: int
    lost: int

    @property
    def pairs(self) -> list[Pair]:
        return [*self.gains, *self.losses]


def read_shown(table: Path, count: int, data: Path = DATA) -> Shown:
    """At most `count` pairs that either model wins, by the main benchmark of `scores.parquet`, the first.

    The images, which the table names by their paths from a project's root, are those of the run in the folder `data`.

    Raises:
        UserError: if an image lacks its twin, or no benchmark has judged any.
    """
    judged = by_benchmark(read_table(table, SCORES, anywhere=["path"]))
    if not judged:
        raise UserError(f"{table}: no benchmark has judged single images: switch one on in section evaluate")
    benchmark, rows = next(iter(judged.items()))
    pairs = [_pair(*({**row, "path": _below(data, row["path"])} for row in both)) for both in paired(rows)]
    won, lost = (in_turns(p for p in pairs if sign * p.gain > 0) for sign in (1, -1))
    gains, losses = (visible_first(own[: LOOKED_AT * count])[:count] for own in (won, lost))
    return Shown(benchmark, pairs, gains, losses, len(won), len(lost))


def _below(data: Path, path: str) -> Path:
    return data / Path(path).relative_to(DATA) if Path(path).is_relative_to(DATA) else Path(path)


def visible_first(pairs: Sequence[Pair]) -> list[Pair]:
    """Among equal gains first the pairs of which a person sees that they differ, else in the order that they have.

    Raises:
        UserError: if an image is missing or unreadable.
    """
    return sorted(pairs, key=lambda pair: (-abs(pair.gain), difference(pair) < VISIBLE))


def difference(pair: Pair) -> float:
    """The mean absolute difference of the two images, of 255, at `SMALL` px: blurred, as a glance sees them."""
    small = [
        np.asarray(Image.fromarray(read_rgb(shot.path)).resize((SMALL, SMALL), Image.Resampling.BOX), np.int16)
        for shot in pair.shots.values()
    ]
    return float(np.abs(small[0] - small[1]).mean())


def unjudged(images: Sequence[Drawn], count: int) -> Shown:
    """Pairs that no benchmark judges, and `count` of them, as far apart as they come, to be shown.

    Raises:
        UserError: if an image lacks its twin.
    """
    pairs = [_pair(*rows) for rows in paired([{**asdict(image), "value": 0.0, "details": "{}"} for image in images])]
    return Shown(None, pairs, pairs[:: max(1, len(pairs) // count)][:count], [], 0, 0)


def _pair(*rows: dict) -> Pair:
    base, tuned = (Shot(Path(row["path"]), row["value"], json.loads(row["details"])) for row in rows)
    row = rows[0]
    return Pair(row["prompt_id"], row["text"], row["category"], row["seed"], base, tuned)


def in_turns(pairs: Iterable[Pair]) -> list[Pair]:
    """The widest gain or loss first; among equal ones the categories take turns, and a prompt's first seed comes first.

    Many benchmarks score 0 or 1, and the first rows of a table are all of one category.
    """
    turns: Counter[tuple[float, str]] = Counter()
    keyed = []
    for pair in sorted(pairs, key=lambda pair: pair.seed):
        kind = (-abs(pair.gain), pair.category)
        keyed.append(((kind[0], turns[kind], pair.category), pair))
        turns[kind] += 1
    return [pair for _, pair in sorted(keyed, key=lambda entry: entry[0])]
