"""JSON files that hold what was agreed, or an error that says where they do not."""

from __future__ import annotations

import codecs
from pathlib import Path
from typing import TypeVar

from pydantic import TypeAdapter, ValidationError

from comat.errors import UserError, clean

T = TypeVar("T")


def read_json(path: Path, kind: type[T], expected: str, remedy: str) -> T:
    """The contents of a file, of the type `kind`; a byte-order mark and keys that a TypedDict lacks do not count.

    Raises:
        UserError: if it is a folder, not JSON, or not of that type; says what was `expected`, where it differs, and
            the `remedy`.
        FileNotFoundError: if there is no such file.
    """
    try:
        return TypeAdapter(kind).validate_json(path.read_bytes().removeprefix(codecs.BOM_UTF8), strict=True)
    except IsADirectoryError:
        raise UserError(f"{path}: a folder; expected {expected}; {remedy}") from None
    except ValidationError as error:
        problem = error.errors(include_url=False, include_input=False)[0]
        where = clean(".".join(str(part) for part in problem["loc"]), 200)
        raise UserError(f"{path}: not {expected}: {f'{where}: ' if where else ''}{problem['msg']}; {remedy}") from None
