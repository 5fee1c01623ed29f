"""Files of prompts: which there are, their text, and the rows of CSVs; what is wrong is named with file and line."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path

from comat.errors import UserError


@dataclass(frozen=True)
class Prompt:
    """A prompt as read: its text (blank where a row holds none), its category, and the split where the format says."""

    text: str
    category: str
    split: str | None = None


def files_in(path: Path, pattern: str, leave_out: Sequence[str], expected: str) -> list[Path]:
    """`path` itself, or the files of a folder, at any depth, that match `pattern` and none of `leave_out`.

    Raises:
        UserError: if there are none; says that `expected` was.
    """
    if path.is_file():
        return [path]
    if not path.is_dir():
        raise UserError(
            f"{path}: no such corpus file or folder; check prompts in params.yaml, and corpora.fetch where it is a "
            "published corpus"
        )
    files = [file for file in sorted(path.rglob(pattern)) if file.is_file()]
    left = [f for f in files if not any(fnmatch(f.relative_to(path).as_posix(), name) for name in leave_out)]
    if not left:
        some = f"all {len(files)} are left out by leave_out" if files else "there are none"
        raise UserError(f"{path}: expected {expected}; {some}")
    return left


def text_of(path: Path) -> str:
    """The text of a UTF-8 file that is not empty.

    Raises:
        UserError: if it is missing, empty, or not UTF-8; names the line.
    """
    if not path.is_file():
        raise UserError(f"{path}: no such corpus file; check prompts.sources in params.yaml")
    data = path.read_bytes()
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise UserError(f"{path}, line {line}: byte {data[error.start]:#04x} is not UTF-8; convert the file") from None
    if not text.strip():
        raise UserError(f"{path}: this corpus file is empty")
    return text


def lines_of(path: Path) -> Iterator[tuple[int, str]]:
    """(number, line) of the lines that are not blank. Only a newline ends one: U+2028 may stand in a prompt."""
    for number, line in enumerate(text_of(path).split("\n"), 1):
        if line.strip():
            yield number, line


def csv_rows(path: Path) -> tuple[list[str], list[tuple[int, dict[str, str]]]]:
    """The columns of a CSV, and (line, row) of its rows; cells that a row lacks are blank.

    Raises:
        UserError: if a row has more cells than there are columns, or a quote does not close; names the line.
    """
    reader = csv.DictReader(io.StringIO(text_of(path), newline=""), restval="", strict=True)
    rows = []
    try:
        columns = list(reader.fieldnames or [])
        for row in reader:
            if None in row:
                raise UserError(
                    f"{path}, line {reader.line_num}: {len(columns) + len(row[None])} cells, but {len(columns)} "
                    "columns; put cells that hold commas in quotes"
                )
            rows.append((reader.line_num, row))
    except csv.Error as error:
        raise UserError(f"{path}, row from line {reader.line_num + 1} on: {error}; is a quote not closed?") from None
    return columns, rows
