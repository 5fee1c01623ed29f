"""Folders whose captions stand beside the images: a text file each, or one table of all, Hugging Face's imagefolder."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path

from comat.corpora.pictures.listed import CAPTION_KEYS, SUFFIXES, Listed, Place, spoken
from comat.errors import UserError
from comat.storage.parquet_files import parquet_rows, parquet_schema
from comat.storage.places import inside
from comat.storage.prompt_text import LINE_END, csv_rows, decoded, lines_of, whole

METADATA = ("metadata.jsonl", "metadata.csv", "metadata.parquet")
TEXTS = (".txt", ".caption")


def side_listing(folder: Path, files: Sequence[Path]) -> list[Listed]:
    """The images among `files`, with the lines of the text file of the same name as their captions.

    Raises:
        UserError: if a text file is not UTF-8.
    """
    texts = {file.with_suffix(""): file for file in files if file.suffix.lower() in TEXTS}
    images = [file for file in files if file.suffix.lower() in SUFFIXES]
    return [Listed(_name(folder, image), Place(image), _lines(texts.get(image.with_suffix("")))) for image in images]


def _name(folder: Path, image: Path) -> str:
    return whole(image.relative_to(folder).as_posix(), f"{folder}: a file name")


def _lines(text: Path | None) -> tuple[str, ...]:
    return tuple(line for line in LINE_END.split(decoded(text)) if line.strip()) if text else ()


def table_listing(folder: Path, tables: Sequence[Path], beside: bool) -> list[Listed]:
    """The images that tables list by `file_name`, which is relative to the table where it stands `beside` them.

    Raises:
        UserError: if a table has no such column, a file stands twice, or a name leads out of the folder.
    """
    found: dict[str, Listed] = {}
    for table in tables:
        home = table.parent if beside else folder
        for where, row in _rows(table):
            name = row.get("file_name")
            if not isinstance(name, str):
                raise UserError(f"{where}: expected a file_name, which is a string, among {str(list(row))[:200]}")
            place = inside(home, name, where)
            id = place.relative_to(folder).as_posix()
            if id in found:
                raise UserError(f"{where}: {name!r} stands twice; give several captions of an image as a list")
            key = next((key for key in CAPTION_KEYS if key in row), None)
            found[id] = Listed(id, Place(place), spoken(row[key], where) if key else ())
    return list(found.values())


def _rows(table: Path) -> Iterator[tuple[str, dict[str, object]]]:
    """(file and line, or row, row) of a table."""
    if table.suffix.lower() == ".parquet":
        columns = [name for name in ("file_name", *CAPTION_KEYS) if name in parquet_schema(table).names]
        for number, cells in enumerate(parquet_rows(table, columns), 1):
            yield f"{table}, row {number}", cells
        return
    if table.suffix.lower() == ".csv":
        for line, cells in csv_rows(table)[1]:
            yield f"{table}, line {line}", dict(cells)
        return
    for number, text in lines_of(table):
        where = f"{table}, line {number}"
        try:
            row = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise UserError(f"{where}: not JSON ({error})") from None
        if not isinstance(row, dict):
            raise UserError(f"{where}: expected an object with file_name and text, got {row!r:.60}")
        yield where, row
