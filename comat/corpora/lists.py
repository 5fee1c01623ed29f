"""Readers of a user's own lists: text, tables, JSON, JSON Lines and Parquet."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import pyarrow as pa

from comat.errors import UserError
from comat.params import PromptList
from comat.storage.parquet_files import parquet_rows, parquet_schema
from comat.storage.prompt_text import DELIMITERS, Prompt, csv_rows, files_in, lines_of, text_of, whole

USUAL = ("prompt", "prompts", "caption", "captions", "text")
"""Names of the column of a table, or the key of an object, that holds prompts."""


def _files(source: PromptList) -> list[Path]:
    return files_in(Path(source.path), f"*.{source.format}", source.leave_out, f"files named *.{source.format}")


def read_txt(source: PromptList) -> Iterator[Prompt]:
    """One prompt a line. The category of a prompt in a list is the name of its file."""
    for file in _files(source):
        lines = list(lines_of(file))
        if other := _other_format(file, [line for _, line in lines]):
            raise UserError(f"{file}, line {lines[0][0]}: this looks like {other}, and not like one prompt a line")
        for _, line in lines:
            yield Prompt(line, file.stem)


def _other_format(file: Path, lines: Sequence[str]) -> str | None:
    """What a file is that holds no prompt a line, with what to do about it; None for one that may."""
    suffix = file.suffix.lower()[1:]
    if suffix in ("csv", "tsv", "json", "jsonl", "parquet"):
        return f"{suffix} by its name: set `format: {suffix}` of this list, or rename the file"
    if all(line.lstrip().startswith("{") and _is_json(line) for line in lines):
        return "JSON Lines: set `format: jsonl` of this list"
    if lines[0].lstrip().startswith(("[", "{")) and _is_json("\n".join(lines)):
        return "JSON: set `format: json` of this list"
    if max(map(len, lines)) > csv.field_size_limit():
        return None
    for delimiter in DELIMITERS:
        rows = csv.reader(lines, delimiter=delimiter)
        header = next(rows, [])
        named = any(cell.strip().lower() in USUAL for cell in header)
        if len(header) > 1 < len(lines) and (named or delimiter == "\t") and all(len(r) == len(header) for r in rows):
            return f"a table of {len(header)} columns: set `format: csv` and `column` of this list"
    return None


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return False
    return True


def read_csv(source: PromptList) -> Iterator[Prompt]:
    """The column that the parameters name; `tsv` is divided by tabs, `csv` by what they say, or what divides best."""
    delimiter = "\t" if source.format == "tsv" else source.delimiter
    for file in _files(source):
        columns, rows = csv_rows(file, delimiter)
        column = _named(source.column, columns, f"{file}, line 1", "column")
        for _, row in rows:
            yield Prompt(row[column], file.stem)


def read_json(source: PromptList) -> Iterator[Prompt]:
    """An array of prompts, an object of prompts by their ids, or an object that holds either.

    A prompt is a string, or an object with the key that the parameters name. What is held is under that key, or is the
    object's only array.
    """
    for file in _files(source):
        items = _held(_parsed(text_of(file), f"{file}"), source.column)
        if isinstance(items, dict) and isinstance(items.get(source.column), str):
            items = [items]  # one prompt with what belongs to it
        if isinstance(items, list):
            named = [(f"item {number}", item) for number, item in enumerate(items, 1)]
        elif isinstance(items, dict) and items and all(isinstance(item, str | dict) for item in items.values()):
            named = [(f"key {id[:60]!r}", item) for id, item in items.items()]
        else:
            keys = f"an object of {cut(list(items))}" if isinstance(items, dict) else type(items).__name__
            raise UserError(
                f"{file}: expected an array of prompts, an object of them by id, or one that holds either: got {keys}"
            )
        for where, item in named:
            yield Prompt(_text(item, source.column, f"{file}, {where}"), file.stem)


def _held(items: object, column: str) -> object:
    """What an object holds under the key `column`, or as its only array; else what came."""
    if not isinstance(items, dict):
        return items
    if isinstance(items.get(column), list | dict):
        return items[column]
    arrays = [value for value in items.values() if isinstance(value, list)]
    return arrays[0] if len(arrays) == 1 else items


def read_jsonl(source: PromptList) -> Iterator[Prompt]:
    """A string a line, or an object with the key that the parameters name."""
    for file in _files(source):
        for number, line in lines_of(file):
            where = f"{file}, line {number}"
            yield Prompt(_text(_parsed(line, where), source.column, where), file.stem)


def read_parquet(source: PromptList) -> Iterator[Prompt]:
    """The column of strings that the parameters name, categorical or not; rows without a value are blank."""
    for file in _files(source):
        for text in parquet_texts(file, source.column):
            yield Prompt(text, file.stem)


def parquet_texts(file: Path, column: str) -> Iterator[str]:
    """The strings of a column of a Parquet file; rows without a value are blank.

    Raises:
        UserError: if the file is not whole, or has no such column of strings.
    """
    schema = parquet_schema(file)
    column = _named(column, schema.names, f"{file}", "column")
    kind = schema.field(schema.names.index(column)).type
    plain = kind.value_type if pa.types.is_dictionary(kind) else kind
    if not (pa.types.is_string(plain) or pa.types.is_large_string(plain) or pa.types.is_string_view(plain)):
        raise UserError(f"{file}: column {column!r} is {kind}: expected strings")
    for row in parquet_rows(file, [column]):
        yield row[column] or ""


def _named(wanted: str, names: Sequence[str], where: str, what: str) -> str:
    """The name among `names` that is wanted, or the only one that differs from it in case and blanks alone."""
    if wanted in names:
        return wanted
    alike = [name for name in names if name.strip().casefold() == wanted.strip().casefold()]
    if len(alike) != 1:
        raise UserError(
            f"{where}: no {what} {wanted!r}, there are {cut(list(names))}; set `column` of this list in params.yaml"
        )
    return alike[0]


def _parsed(text: str, where: str) -> object:
    try:
        return json.loads(text, object_pairs_hook=_object)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{where}: not JSON ({error})") from None


def _object(pairs: Iterable[tuple[str, object]]) -> dict[str, object]:
    found: dict[str, object] = {}
    for key, value in pairs:
        if key in found:
            raise ValueError(f"key {key[:60]!r} stands twice in an object")
        found[key] = value
    return found


def _text(item: object, key: str, where: str) -> str:
    """The prompt of a parsed item."""
    if isinstance(item, dict):
        item = item[_named(key, list(item), where, "key")]
    if not isinstance(item, str):
        raise UserError(f"{where}: expected a string, got {item!r:.60}")
    return whole(item, where)


def cut(names: Sequence[str]) -> str:
    """A list of names for a message, whose length is the file's, which may be anything."""
    text = str(list(names))
    return text if len(text) <= 200 else f"{text[:200]}…"
