"""Files of prompts: which there are, their text, and the rows of tables; what is wrong is named with file and line."""

from __future__ import annotations

import codecs
import csv
import io
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path

from comat.errors import UserError
from comat.storage.folders import files_below

MARKS = {  # longest first: that of UTF-16 begins that of UTF-32
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF8: "utf-8-sig",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
LINE_END = re.compile(r"\r\n|\n|\r")  # of any system, and nothing else: U+2028 may stand in a prompt
DELIMITERS = ",\t;|"


@dataclass(frozen=True, slots=True)
class Prompt:
    """A prompt as read: its text (blank where a row holds none), its category, and the split where the format says."""

    text: str
    category: str
    split: str | None = None


def files_in(path: Path, pattern: str, leave_out: Sequence[str], expected: str) -> list[Path]:
    """`path` itself, or the files of a folder, at any depth, that match `pattern` and none of `leave_out`.

    `pattern` is in lower case and matches names in any case. Hidden files are left alone.

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
    files = [file for file in files_below(path, hidden=False) if fnmatch(file.name.lower(), pattern)]
    left = [f for f in files if not any(fnmatch(f.relative_to(path).as_posix(), name) for name in leave_out)]
    if not left:
        some = f"all {len(files)} are left out by leave_out" if files else "there are none"
        raise UserError(f"{path}: expected {expected}; {some}")
    return left


def text_of(path: Path) -> str:
    """The text of a file that is not empty.

    Raises:
        UserError: if it is missing, empty, or not to be `decoded`.
    """
    if not path.is_file():
        raise UserError(f"{path}: no such corpus file; check prompts.sources in params.yaml")
    text = decoded(path)
    if not text.strip():
        raise UserError(f"{path}: this file is empty")
    return text


def decoded(path: Path) -> str:
    """The text of a file in UTF-8, or in UTF-16 or UTF-32 with the byte-order mark that says so.

    Raises:
        UserError: if it is in another encoding; names the line.
    """
    data = path.read_bytes()
    encoding = next((name for mark, name in MARKS.items() if data.startswith(mark)), "utf-8")
    try:
        text = data.decode(encoding)
    except UnicodeDecodeError as error:
        line = _line(data[: error.start].decode(encoding, "ignore"))
        kind = encoding.removesuffix("-sig").upper()
        raise UserError(
            f"{path}, line {line}: byte {data[error.start]:#04x} is not {kind}; save the file as UTF-8"
        ) from None
    if (at := text.find("\0")) >= 0:
        raise UserError(
            f"{path}, line {_line(text[:at])}: a NUL character: this is no text, or UTF-16 without its byte-order "
            "mark; save the file as UTF-8"
        )
    return text


def _line(before: str) -> int:
    """The number of the line that a text ends in."""
    return len(LINE_END.findall(before)) + 1


def lines_of(path: Path) -> Iterator[tuple[int, str]]:
    """(number, line) of the lines that are not blank."""
    for number, line in enumerate(LINE_END.split(text_of(path)), 1):
        if line.strip():
            yield number, line


def whole(text: str, where: str) -> str:
    """`text`, if it has no half characters, which JSON and Python can write and no file can hold.

    Raises:
        UserError: saying `where`.
    """
    try:
        text.encode()
    except UnicodeEncodeError as error:
        half = f"\\u{ord(text[error.start]):04x}"
        raise UserError(f"{where}: {half} is half of a character (a lone surrogate); mend or remove it") from None
    return text


def csv_rows(path: Path, delimiter: str | None = None) -> tuple[list[str], list[tuple[int, dict[str, str]]]]:
    """The columns of a table, and (line, row) of its rows; cells that a row lacks are blank.

    Without a `delimiter` it is the one of comma, tab, semicolon and bar that divides the first line most. A table
    divided by tabs whose lines all have as many cells is read line by line, since there a quote may be a mere quote.

    Raises:
        UserError: if a row has more cells than there are columns, a column is named twice, or a quote does not close;
            names the line.
    """
    text = text_of(path)
    delimiter = delimiter or max(DELIMITERS, key=lambda one: _divided(text, one))
    columns, rows = _lines(text, delimiter) or _quoted(path, text, delimiter)
    twice = next((name for name in columns if name.strip() and columns.count(name) > 1), None)
    if twice:
        raise UserError(f"{path}, line 1: column {twice!r} stands twice; remove or rename one")
    return columns, [(line, dict(zip(columns, row, strict=True))) for line, row in rows]


def _divided(text: str, delimiter: str) -> int:
    """How many cells the first row has."""
    try:
        return len(next((row for row in csv.reader(io.StringIO(text, newline=""), delimiter=delimiter) if row), []))
    except csv.Error:  # a cell without end
        return 0


def _lines(text: str, delimiter: str) -> tuple[list[str], list[tuple[int, list[str]]]] | None:
    """The lines of a table divided by tabs, if all have as many cells as the first; else None."""
    if delimiter != "\t":
        return None
    lines = [(number, line) for number, line in enumerate(LINE_END.split(text), 1) if line]
    cells = [(number, [_unquoted(cell) for cell in line.split(delimiter)]) for number, line in lines]
    if any(len(row) != len(cells[0][1]) for _, row in cells):
        return None
    return cells[0][1], cells[1:]


def _unquoted(cell: str) -> str:
    inner = cell[1:-1].replace('""', "")
    quoted = len(cell) > 1 and cell[0] == cell[-1] == '"' and '"' not in inner
    return cell[1:-1].replace('""', '"') if quoted else cell


def _quoted(path: Path, text: str, delimiter: str) -> tuple[list[str], list[tuple[int, list[str]]]]:
    """The columns and rows of a table whose cells may stand in quotes and then hold delimiters and line ends."""
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    rows: list[tuple[int, list[str]]] = []
    line = 0
    try:
        for row in reader:
            line = reader.line_num
            if rows and len(row) > len(rows[0][1]):
                raise UserError(
                    f"{path}, line {line}: {len(row)} cells, but {len(rows[0][1])} columns; put cells that hold "
                    f"{delimiter!r} in quotes; of a list in params.yaml `delimiter` can be set as well"
                )
            if row:
                rows.append((line, row + [""] * (len(rows[0][1]) - len(row) if rows else 0)))
    except csv.Error as error:
        raise UserError(f"{path}, row from line {line + 1} on: {error}; is a quote not closed?") from None
    return rows[0][1], rows[1:]
