"""Types of values, and what a section of the parameters is."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

Probability = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[float, Field(gt=0)]
LearningRate = Annotated[float, Field(gt=0, le=1)]
NotNegative = Annotated[float, Field(ge=0)]
Count = Annotated[int, Field(ge=1, le=10**9)]
CountOrNone = Annotated[int, Field(ge=0, le=10**9)]


def _printable(name: str) -> str:
    if not name.strip() or not name.isprintable():
        raise ValueError("expected text that can be printed, not blanks alone (null for none)")
    return name


Name = Annotated[str, Field(min_length=1), AfterValidator(_printable)]  # hub id, file or folder
Moment = Annotated[float, Field(ge=0, lt=1)]
PROMPT = "{prompt}"
DESCRIBE = "Describe the image in one sentence."
SHOWS = f'Does this figure show "{PROMPT}"?'
"""VQAScore's question (Lin et al. 2024)."""


class Section(BaseModel):
    """A part of the parameters: unknown keys and wrong types are errors, and nothing changes after loading."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)
