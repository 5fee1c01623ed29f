"""Readers of the published formats. Each yields prompts in the order of the files and drops nothing but blanks."""

from __future__ import annotations

import ast
import csv
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from comat.errors import UserError

HRS_COLUMNS = ("synthetic_prompt", "original_prompts", "meta_prompt")
"""Columns that can hold a prompt, best first; the first that has text in a row is taken."""


@dataclass(frozen=True)
class Prompt:
    """A prompt as read: its text, the category its corpus puts it in, and "train" or "test"."""

    text: str
    category: str
    split: str = "train"


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


def read_lines(path: Path, category: str | None = None, split: str = "train") -> Iterator[Prompt]:
    """One prompt a line; the category defaults to the file's name."""
    for line in text_of(path).splitlines():
        if line.strip():
            yield Prompt(line, category or path.stem, split)


def read_t2i_compbench(folder: Path) -> Iterator[Prompt]:
    """T2I-CompBench: `<category>_train.txt` and `<category>_val.txt`, the latter held out.

    The `_val_seen` and `_val_unseen` lists repeat `_val` and are left alone.
    """
    files = [(file, re.fullmatch(r"(.+)_(train|val)", file.stem)) for file in sorted(folder.glob("*.txt"))]
    named = [(file, match) for file, match in files if match]
    if not named:
        raise UserError(f"{folder}: no <category>_train.txt or <category>_val.txt; expected T2I-CompBench's lists")
    for file, match in named:
        yield from read_lines(file, match[1], "train" if match[2] == "train" else "test")


def read_abc6k(file: Path) -> Iterator[Prompt]:
    """ABC-6K: contrast pairs, one caption a line."""
    yield from read_lines(file, "abc6k")


def read_hrs(folder: Path) -> Iterator[Prompt]:
    """HRS-Bench: CSVs at any depth, whose columns differ from file to file; the category is the CSV's folder."""
    files = sorted(folder.rglob("*.csv"))
    if not files:
        raise UserError(f"{folder}: no CSV files; expected HRS-Bench's generated_prompts")
    for file in files:
        rows = csv.DictReader(text_of(file).splitlines())
        columns = [name for name in HRS_COLUMNS if name in (rows.fieldnames or [])]
        if not columns:
            raise UserError(f"{file}: columns {rows.fieldnames}: expected one of {', '.join(HRS_COLUMNS)}")
        category = file.parent.name if file.parent != folder else file.stem
        for row in rows:
            cell = next((row[name] for name in columns if (row[name] or "").strip()), None)
            for text in _cell(cell):
                yield Prompt(text, category)


def _cell(cell: str | None) -> list[str]:
    """A cell's prompts: most hold one; the k4 file holds Python lists."""
    if cell is None:
        return []
    if cell.startswith("["):
        try:
            return [str(item) for item in ast.literal_eval(cell) if str(item).strip()]
        except (ValueError, SyntaxError):
            return [cell]
    return [cell]
