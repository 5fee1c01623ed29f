"""TIFA's questions and answers: one JSON list."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

from pydantic import BeforeValidator

from comat.errors import UserError
from comat.samples.formats.rows import Row, Text, checked, file_text, parsed


class Question(Row):
    """A multiple-choice question about the image of the prompt `caption`, whose number `id` is."""

    id: Annotated[Text, BeforeValidator(lambda id: str(id) if type(id) is int else id)]
    caption: Text
    question: Text
    choices: list[str]
    answer: str
    element_type: Text  # color, counting, animal/human …

    @property
    def unaskable(self) -> str | None:
        """Why it cannot be asked, if it cannot."""
        if not all(choice.strip() for choice in self.choices):
            return "questions with an empty choice"
        if len(self.choices) < 2:
            return "questions with fewer than two choices"
        return None if self.answer in self.choices else "questions whose answer is none of the choices"


@dataclass(frozen=True)
class Questions:
    """Prompt → its questions, in the order of the file, and how many could not be asked, by why."""

    by_prompt: Mapping[str, list[Question]]
    left_out: Mapping[str, int] = field(default_factory=dict)


def read(path: Path) -> Questions:
    """The questions of a file; those that cannot be asked are left out and counted.

    Raises:
        UserError: naming the file, the entry and what was expected; or if no question can be asked.
    """
    entries = parsed(file_text(path), str(path))
    if not isinstance(entries, list) or not entries:
        raise UserError(f"{path}: expected a list of questions, got {str(entries)[:60]!r}")
    captions: dict[str, str] = {}
    found: dict[str, list[Question]] = defaultdict(list)
    left_out: Counter[str] = Counter()
    for number, entry in enumerate(entries, 1):
        question = checked(Question, entry, f"{path}, entry {number}")
        caption = captions.setdefault(question.id, question.caption)
        if caption != question.caption:
            raise UserError(
                f"{path}, entry {number}: caption is {question.caption[:80]!r}: expected {caption[:80]!r}, as id "
                f"{question.id!r} has it before"
            )
        if question.unaskable:
            left_out[question.unaskable] += 1
        else:
            found[question.caption].append(question)
    if not found:
        raise UserError(f"{path}: none of {len(entries)} questions can be asked: {dict(left_out)}")
    return Questions(dict(found), dict(left_out))


def prompts(path: Path) -> list[tuple[str, str]]:
    """The prompts, each once, and their category.

    Raises:
        UserError: as `read`.
    """
    return [(caption, "tifa") for caption in read(path).by_prompt]
