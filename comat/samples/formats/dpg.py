"""DPG-Bench's questions: a CSV, one line a question."""

from __future__ import annotations

from graphlib import CycleError, TopologicalSorter
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


def _parents(cell: str) -> list[int]:
    try:
        numbers = [_number(part) for part in cell.split(",")]
    except ValueError:
        raise ValueError("expected numbers of propositions, separated by commas, or 0") from None
    return [number for number in numbers if number]


class Question(Row):
    """A question that the image of the prompt `text` should answer with yes. Aliases are the file's columns."""

    item: Text = Field(alias="item_id")
    text: Text
    number: Annotated[Count, BeforeValidator(_number)] = Field(alias="proposition_id")
    parents: Annotated[list[int], BeforeValidator(_parents)] = Field(alias="dependency")
    """The questions of the prompt that this one takes for granted: "Is the hat red?" that there is a hat."""
    category: Text = Field(alias="category_broad")  # entity, attribute, relation, global, other
    question: Text = Field(alias="question_natural_language")


def read(path: Path) -> dict[str, list[Question]]:
    """Prompt → its questions, parents before their children.

    Raises:
        UserError: naming the file, the line and what was expected.
    """
    file_text(path)
    items: dict[str, dict[int, Question]] = {}
    for line, row in csv_rows(path)[1]:
        where = f"{path}, line {line}"
        question = checked(Question, row, where)
        own = items.setdefault(question.item, {})
        if question.number in own:
            raise UserError(f"{where}: item {question.item!r} has a proposition {question.number} before")
        if own and question.text != next(iter(own.values())).text:
            raise UserError(f"{where}: item {question.item!r} has another text before; expected one for each item")
        own[question.number] = question
    if not items:
        raise UserError(f"{path}: expected a line for each question, found none")
    found: dict[str, list[Question]] = {}
    for item, own in items.items():
        text = next(iter(own.values())).text
        if text in found:
            raise UserError(f"{path}: item {item!r} has the text of another; expected one item for each prompt")
        found[text] = _in_order(own, f"{path}, item {item!r}")
    return found


def _in_order(questions: dict[int, Question], where: str) -> list[Question]:
    for number, question in questions.items():
        unknown = [parent for parent in question.parents if parent not in questions]
        if unknown:
            raise UserError(
                f"{where}: proposition {number} depends on {unknown[0]}, which is not there; expected one of "
                f"{sorted(questions)}, or 0"
            )
    try:
        order = TopologicalSorter({number: own.parents for number, own in questions.items()}).static_order()
        return [questions[number] for number in order]
    except CycleError as error:
        raise UserError(f"{where}: propositions {error.args[1]} depend on each other in a circle") from None


def prompts(path: Path) -> list[tuple[str, str]]:
    """The prompts, each once, and their category.

    Raises:
        UserError: as `read`.
    """
    return [(text, "dpg") for text in read(path)]
