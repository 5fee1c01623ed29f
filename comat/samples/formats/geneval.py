"""GenEval's metadata: JSON Lines, one line a prompt."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, get_args

from pydantic import Field, model_validator

from comat.samples.formats.rows import Count, Prompted, Row, Text, by_prompt

Colour = Literal["red", "orange", "yellow", "green", "blue", "purple", "pink", "brown", "black", "white"]
Direction = Literal["left of", "right of", "above", "below"]
COLOURS: tuple[Colour, ...] = get_args(Colour)


class Excluded(Row):
    """Fewer than `count` objects of this kind."""

    noun: Text = Field(alias="class")
    count: Count


class Included(Excluded):
    """At least `count` objects of this kind, of which the surest `count` have the colour and the position."""

    color: Colour | None = None
    position: tuple[Direction, int] | None = Field(None, strict=False)
    """A direction, and which entry of `include` it is seen from, counted from 0: one before this."""


class Metadata(Prompted):
    """What the image of a prompt must show: everything of `include`, nothing of `exclude`."""

    tag: Text  # single_object, two_object, counting, colors, position, color_attr
    include: list[Included] = Field(min_length=1)
    exclude: list[Excluded] = Field(default_factory=list)

    @model_validator(mode="after")
    def _seen_from_before(self) -> Metadata:
        for place, wanted in enumerate(self.include):
            if wanted.position and not 0 <= wanted.position[1] < place:
                raise ValueError(
                    f"include {place} has its position from {wanted.position[1]}: expected the number of an entry "
                    "before it, counted from 0"
                )
        return self

    @property
    def nouns(self) -> list[str]:
        """What to look for, each once."""
        return list(dict.fromkeys(wanted.noun for wanted in (*self.include, *self.exclude)))


def read(path: Path) -> dict[str, Metadata]:
    """Prompt → what its image must show.

    Raises:
        UserError: naming the file, the line and what was expected.
    """
    return by_prompt(Metadata, path, "metadata")


def prompts(path: Path) -> list[tuple[str, str]]:
    """The prompts, each once, and their tags, which are their categories.

    Raises:
        UserError: as `read`.
    """
    return [(prompt, metadata.tag) for prompt, metadata in read(path).items()]
