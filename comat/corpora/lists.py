"""Readers of a user's own lists: text, CSV, JSON, JSON Lines and Parquet."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from comat.errors import UserError, first_line
from comat.params import PromptList
from comat.storage.prompt_text import Prompt, csv_rows, files_in, lines_of, text_of


def _files(source: PromptList) -> list[Path]:
    return files_in(Path(source.path), f"*.{source.format}", source.leave_out, f"files named *.{source.format}")


def read_txt(source: PromptList) -> Iterator[Prompt]:
    """One prompt a line. The category of a prompt in a list is the name of its file."""
    for file in _files(source):
        for _, line in lines_of(file):
            yield Prompt(line, file.stem)


def read_csv(source: PromptList) -> Iterator[Prompt]:
    """The column that the parameters name."""
    for file in _files(source):
        columns, rows = csv_rows(file)
        if source.column not in columns:
            raise _no_column(file, source.column, columns)
        for _, row in rows:
            yield Prompt(row[source.column], file.stem)


def read_json(source: PromptList) -> Iterator[Prompt]:
    """An array of strings, or of objects with the key that the parameters name."""
    for file in _files(source):
        items = _parsed(text_of(file), f"{file}")
        if not isinstance(items, list):
            raise UserError(f"{file}: expected an array of prompts, got {type(items).__name__}")
        for number, item in enumerate(items, 1):
            yield Prompt(_text(item, source.column, f"{file}, item {number}"), file.stem)


def read_jsonl(source: PromptList) -> Iterator[Prompt]:
    """A string a line, or an object with the key that the parameters name."""
    for file in _files(source):
        for number, line in lines_of(file):
            where = f"{file}, line {number}"
            yield Prompt(_text(_parsed(line, where), source.column, where), file.stem)


def read_parquet(source: PromptList) -> Iterator[Prompt]:
    """The column of strings that the parameters name; rows without a value are blank."""
    for file in _files(source):
        try:
            table = pq.ParquetFile(file)
            if source.column not in table.schema_arrow.names:
                raise _no_column(file, source.column, table.schema_arrow.names)
            kind = table.schema_arrow.field(source.column).type
            if not (pa.types.is_string(kind) or pa.types.is_large_string(kind)):
                raise UserError(f"{file}: column {source.column!r} is {kind}: expected strings")
            for batch in table.iter_batches(columns=[source.column]):
                batch.validate(full=True)  # text that is no UTF-8 would raise only where it is read
                yield from (Prompt(text or "", file.stem) for text in batch.column(0).to_pylist())
        except (pa.ArrowException, OSError) as error:
            if getattr(error, "errno", None) is not None:
                raise
            # Arrow reports what it cannot decode as an OSError as well, but without a number.
            raise UserError(f"{file}: not a whole Parquet file ({first_line(error)})") from None


def _no_column(file: Path, column: str, columns: list[str]) -> UserError:
    return UserError(f"{file}: no column {column!r}, there are {columns}; set `column` of this list in params.yaml")


def _parsed(text: str, where: str) -> object:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{where}: not JSON ({error})") from None


def _text(item: object, key: str, where: str) -> str:
    """The prompt of a parsed item."""
    if isinstance(item, dict):
        if key not in item:
            raise UserError(
                f"{where}: no key {key!r}, there are {list(item)}; set `column` of this list in params.yaml"
            )
        item = item[key]
    if not isinstance(item, str):
        raise UserError(f"{where}: expected a string, got {item!r:.60}")
    return item
