"""What the formats have in common: a file's text, its rows, and what is wrong with them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from comat.errors import UserError
from comat.storage.prompt_text import lines_of, text_of

Text = Annotated[str, Field(min_length=1)]
Count = Annotated[int, Field(ge=1)]


class Row(BaseModel):
    """A row of a benchmark's file; keys that no score is made of are left alone."""

    model_config = ConfigDict(extra="ignore", frozen=True, strict=True)


class Prompted(Row):
    """One that is of a prompt."""

    prompt: Text


R = TypeVar("R", bound=Row)
P = TypeVar("P", bound=Prompted)


def file_text(path: Path) -> str:
    """The text of a benchmark's file.

    Raises:
        UserError: if it is missing, empty or not UTF-8.
    """
    if not path.is_file():
        raise UserError(f"{path}: no such file; docs/benchmarks.md says what it holds and where it is published")
    return text_of(path)


def parsed(text: str, where: str) -> object:
    """The value of a JSON text.

    Raises:
        UserError: if it is none; says where.
    """
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{where}: expected JSON: {error}") from None


def checked(kind: type[R], values: object, where: str) -> R:
    """`values` as a row.

    Raises:
        UserError: says where, which key, what came, and what was expected.
    """
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        problem = error.errors(include_url=False)[0]
        key = ".".join(str(part) for part in problem["loc"])
        if problem["type"] == "missing":
            keys = [field.alias or name for name, field in kind.model_fields.items() if field.is_required()]
            raise UserError(f"{where}: {key} is missing; expected {', '.join(keys)}") from None
        message = problem["msg"].removeprefix("Value error, ")
        raise UserError(f"{where}: {key or 'row'} is {str(problem['input'])[:80]!r}: {message}") from None


def by_prompt(kind: type[P], path: Path, what: str) -> dict[str, P]:
    """Prompt → its row, of JSON Lines; a line may come twice. `what`: that a row holds, in an error.

    Raises:
        UserError: naming the file, the line and what was expected.
    """
    file_text(path)
    found: dict[str, P] = {}
    for number, line in lines_of(path):
        where = f"{path}, line {number}"
        row = checked(kind, parsed(line, where), where)
        if found.setdefault(row.prompt, row) != row:
            raise UserError(f"{where}: prompt {row.prompt!r} has other {what} before; expected it once")
    return found
