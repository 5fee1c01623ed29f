"""T2I-CompBench's 2-D spatial relations (Huang et al. 2023): what a prompt asks for, and how well two boxes meet it.

The rules are those of the published code, by which the published scores were made.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from comat.entities.parse import ParsedEntity, Span
from comat.judges.detector import Instance

NEAR = 150 / 480
"""Centres closer than this are near, as a share of the image's longer side: 150 px of the 480 px they are judged at."""

MOST_OVERLAP = 0.1
"""Intersection over union from which a direction counts less."""

LEAST = 0.5
"""A lower score is 0."""

_RELATION = re.compile(
    r"\b(?:next to|near|on (?:the )?side of|on (?:the )?(left|right|top|bottom) of)\b", re.IGNORECASE
)


@dataclass(frozen=True)
class Relation:
    """`first` is on the left, right, top or bottom of `second`, or near it; `span`: where the prompt says so."""

    name: str  # left, right, top, bottom, near
    first: str
    second: str
    span: Span


def relation_in(text: str, entities: Sequence[ParsedEntity]) -> Relation | None:
    """The first relation of a prompt, between the nouns next to its words; None if it names none, or no such nouns."""
    match = _RELATION.search(text)
    if match is None:
        return None
    before = [entity.noun for entity in entities if entity.noun_span[1] <= match.start()]
    after = [entity.noun for entity in entities if entity.noun_span[0] >= match.end()]
    if not before or not after:
        return None
    return Relation((match[1] or "near").lower(), before[-1], after[0], match.span())


def spatial_score(name: str, first: Instance | None, second: Instance | None, side: float) -> float:
    """Half for the relation, a quarter for how sure the detector is of each object; in [0, 1]. side: see below."""
    if first is None or second is None:
        return 0.0  # a quarter at most, so below `LEAST`
    score = relation_score(name, first, second, side) / 2 + (first.score + second.score) / 4
    return score if score >= LEAST else 0.0


def relation_score(name: str, first: Instance, second: Instance, side: float) -> float:
    """How well two boxes meet a relation, in [0, 1].

    near: 1 if the centres are closer than `NEAR` along either axis, else `NEAR` over their larger distance along one.
    A direction: 0 unless the centres lie in it, further apart along its axis than along the other; then 1, or
    `MOST_OVERLAP` over the boxes' intersection over union where that is larger.

    side: the image's longer side, in the unit of the boxes.
    """
    dx = ((first.left + first.right) - (second.left + second.right)) / 2 / side
    dy = ((first.top + first.bottom) - (second.top + second.bottom)) / 2 / side
    if name == "near":
        return 1.0 if min(abs(dx), abs(dy)) < NEAR else NEAR / max(abs(dx), abs(dy))
    along, across = {"left": (-dx, dy), "right": (dx, dy), "top": (-dy, dx), "bottom": (dy, dx)}[name]
    if along <= abs(across):
        return 0.0
    return min(1.0, MOST_OVERLAP / max(overlap(first, second), MOST_OVERLAP))


def overlap(a: Instance, b: Instance) -> float:
    """Intersection over union."""
    width = max(0.0, min(a.right, b.right) - max(a.left, b.left))
    height = max(0.0, min(a.bottom, b.bottom) - max(a.top, b.top))
    areas = sum((box.right - box.left) * (box.bottom - box.top) for box in (a, b))
    return width * height / (areas - width * height)
