"""TIFA's questions and answers: one JSON list."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path

from pydantic import Field, model_validator

from comat.errors import UserError
from comat.samples.formats.rows import Row, Text, checked, file_text, parsed


class Question(Row):
    """A multiple-choice question about the image of the prompt `caption`, whose number `id` is."""

    id: Text
    caption: Text
    question: Text
    choices: list[Text] = Field(min_length=2)
    answer: Text
    element_type: Text  # color, counting, animal/human …

    @model_validator(mode="after")
    def _answerable(self) -> Question:
        if self.answer not in self.choices:
            raise ValueError(f"the answer {self.answer!r} is none of the choices {self.choices}")
        return self


def read(path: Path) -> dict[str, list[Question]]:
    """Prompt → its questions, in the order of the file.

    Raises:
        UserError: naming the file, the entry and what was expected.
    """
    entries = parsed(file_text(path), str(path))
    if not isinstance(entries, list) or not entries:
        raise UserError(f"{path}: expected a list of questions, got {str(entries)[:60]!r}")
    captions: dict[str, str] = {}
    found: dict[str, list[Question]] = defaultdict(list)
    for number, entry in enumerate(entries, 1):
        question = checked(Question, entry, f"{path}, entry {number}")
        caption = captions.setdefault(question.id, question.caption)
        if caption != question.caption:
            raise UserError(
                f"{path}, entry {number}: caption is {question.caption[:80]!r}: expected {caption[:80]!r}, as id "
                f"{question.id!r} has it before"
            )
        found[question.caption].append(question)
    return dict(found)


def prompts(path: Path) -> list[tuple[str, str]]:
    """The prompts, each once, and their category.

    Raises:
        UserError: as `read`.
    """
    return [(caption, "tifa") for caption in read(path)]
