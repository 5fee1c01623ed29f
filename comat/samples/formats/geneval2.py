"""GenEval 2's questions: JSON Lines, one line a prompt."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import Field, model_validator

from comat.samples.formats.rows import Count, Prompted, Text, by_prompt

Pair = Annotated[list[Text], Field(min_length=2, max_length=2)]


class Asked(Prompted):
    """A prompt, how many words of it an image must meet, and questions with their answers, each of a skill."""

    atom_count: Count
    vqa_list: list[Pair] = Field(min_length=1)  # "How many pigs are in the image?", "two"; all else is "Yes"
    skills: list[Text]  # object, attribute, count, position, verb

    @model_validator(mode="after")
    def _a_skill_for_each(self) -> Asked:
        if len(self.skills) != len(self.vqa_list):
            raise ValueError(f"{len(self.vqa_list)} questions and {len(self.skills)} skills: expected one for each")
        return self

    @property
    def category(self) -> str:
        """How much its prompt asks for; the published analysis tells prompts apart by it."""
        return f"atoms {self.atom_count:02d}"


def read(path: Path) -> dict[str, Asked]:
    """Prompt → what is asked of its image.

    Raises:
        UserError: naming the file, the line and what was expected.
    """
    return by_prompt(Asked, path, "questions")


def prompts(path: Path) -> list[tuple[str, str]]:
    """The prompts, each once, and their categories.

    Raises:
        UserError: as `read`.
    """
    return [(prompt, asked.category) for prompt, asked in read(path).items()]
