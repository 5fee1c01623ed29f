"""Questions about dense prompts as DPG-Bench and DSG-1k publish them: a CSV, one line a question.

The published files hold a few rows that no rule foresees; they are read for what they say, as the published code does.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

from pydantic import BeforeValidator, Field

from comat.errors import UserError
from comat.samples.formats.rows import Count, Row, Text, checked, file_text
from comat.storage.prompt_text import csv_rows


def _number(cell: str) -> int:
    if not cell.strip().isdecimal():
        raise ValueError("expected a whole number")
    return int(cell)


class _Line(Row):
    """A line of the file. Aliases are its columns."""

    item: Text = Field(alias="item_id")
    text: Text
    number: Annotated[Count, BeforeValidator(_number)] = Field(alias="proposition_id")
    dependency: str
    category: Text = Field(alias="category_broad")  # entity, attribute, relation, global, other
    question: Text = Field(alias="question_natural_language")


@dataclass(frozen=True)
class Question:
    """A question that the image of a prompt should answer with yes; `parents` are places in the prompt's list.

    A parent is what the question takes for granted: "Is the hat red?" that there is a hat. It stands before the
    question; only in a circle may one stand behind it.
    """

    question: str
    category: str
    parents: tuple[int, ...] = ()


@dataclass(frozen=True)
class Questions:
    """Prompt → its questions, and how much of the file could not be used, by what it is."""

    by_prompt: Mapping[str, list[Question]]
    left_out: Mapping[str, int] = field(default_factory=dict)


def read(path: Path) -> Questions:
    """The questions of a file.

    A parent that is the question itself is none. One that is no number, or is not there, is left out and counted. The
    questions of items of one text are asked of one prompt, each item's among themselves.

    Raises:
        UserError: naming the file, the line and what was expected.
    """
    file_text(path)
    items: dict[str, dict[int, _Line]] = {}
    for at, row in csv_rows(path)[1]:
        where = f"{path}, line {at}"
        line = checked(_Line, row, where)
        own = items.setdefault(line.item, {})
        if line.number in own:
            raise UserError(f"{where}: item {line.item!r} has a proposition {line.number} before")
        if own and line.text != next(iter(own.values())).text:
            raise UserError(f"{where}: item {line.item!r} has another text before; expected one for each item")
        own[line.number] = line
    if not items:
        raise UserError(f"{path}: expected a line for each question, found none")
    found: dict[str, list[Question]] = {}
    left_out: Counter[str] = Counter()
    for own in items.values():
        text = next(iter(own.values())).text
        before = found.setdefault(text, [])
        parents = {number: _parents(line, own, left_out) for number, line in own.items()}
        order = in_order(parents)
        place = {number: len(before) + at for at, number in enumerate(order)}
        before += [
            Question(own[n].question, own[n].category, tuple(place[parent] for parent in parents[n])) for n in order
        ]
    return Questions(found, dict(left_out))


def _parents(line: _Line, item: Mapping[int, _Line], left_out: Counter[str]) -> list[int]:
    """The numbers of the questions that a line depends on; what is none is counted."""
    found = []
    for cell in filter(None, (part.strip() for part in line.dependency.split(","))):
        if not cell.isdecimal():
            left_out["parents that are no number"] += 1
        elif int(cell) in item:
            found.append(int(cell))
        elif int(cell):  # 0 is none
            left_out["parents that are not there"] += 1
    return [parent for parent in dict.fromkeys(found) if parent != line.number]


def in_order(parents: Mapping[int, list[int]]) -> list[int]:
    """Numbers of questions in the order of the file, but parents before their children; circles as they stand there."""
    above = {number: _above(number, parents) for number in parents}
    order: list[int] = []
    while len(order) < len(parents):
        done = {*order}
        order.append(
            next(
                number
                for number, own in parents.items()
                # One that depends on this one as well is of its circle.
                if number not in done and all(parent in done or number in above[parent] for parent in own)
            )
        )
    return order


def _above(number: int, parents: Mapping[int, list[int]]) -> set[int]:
    """All that a question depends on, directly or not."""
    found: set[int] = set()
    todo = list(parents[number])
    while todo:
        parent = todo.pop()
        if parent not in found:
            found.add(parent)
            todo += parents[parent]
    return found


def prompts(category: str, path: Path) -> list[tuple[str, str]]:
    """The prompts, each once, and their `category`, the same of all.

    Raises:
        UserError: as `read`.
    """
    return [(text, category) for text in read(path).by_prompt]
