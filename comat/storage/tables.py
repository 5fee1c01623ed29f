"""What stages hand to each other: Parquet tables with declared schemas, JSON and safetensors. Every file appears whole
or not at all.
"""

from __future__ import annotations

import contextlib
import csv
import hashlib
import io
import json
import os
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor
from typing_extensions import TypedDict

from comat.errors import UserError, first_line
from comat.storage.columns import check_nulls, check_places
from comat.storage.json_files import read_json
from comat.storage.places import inside

PROMPTS = pa.schema(
    {"id": pa.string(), "text": pa.string(), "source": pa.string(), "category": pa.string(), "split": pa.string()}
)
EVALUATION_PROMPTS = pa.schema(
    {
        "list": pa.string(),
        "text": pa.string(),
        "near": pa.float64(),  # the similarity from which on another text is nearly this one
    }
)
DROPPED_PROMPTS = pa.schema(
    {
        "text": pa.string(),
        "source": pa.string(),
        "category": pa.string(),
        "split": pa.string(),
        "reason": pa.string(),
        # The evaluation prompt that it is or nearly is, and the list that holds it; null for other reasons.
        "evaluation": pa.string(),
        "match": pa.string(),
    }
)
ENTITIES = pa.schema(
    {
        "prompt_id": pa.string(),
        "entity": pa.int32(),
        "noun": pa.string(),
        "lemma": pa.string(),
        "attributes": pa.list_(pa.string()),
        "numerals": pa.list_(pa.string()),
        # Token positions in the encoded prompt (start token included), one list for each tokenizer.
        "noun_tokens": pa.list_(pa.list_(pa.int32())),
        "tokens": pa.list_(pa.list_(pa.int32())),
        "kept": pa.bool_(),
        "reason": pa.string(),
    }
)
IMAGE_INDEX = pa.schema(
    {
        "model": pa.string(),
        "prompt_id": pa.string(),
        "text": pa.string(),
        "source": pa.string(),
        "category": pa.string(),
        "seed": pa.int32(),
        "path": pa.string(),
    }
)

FORMULA = ("=", "+", "-", "@")
"""What a cell begins with that a spreadsheet takes for a formula."""


@contextlib.contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """A temporary path beside `path` that takes its place when the block ends well, and is removed otherwise.

    Raises:
        OSError: naming `path`, for example where the disk is full; what stood there before still does.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        yield part
        with part.open("rb+") as file:
            os.fsync(file.fileno())
        os.replace(part, path)
    except OSError as error:
        if error.filename is not None:
            raise
        # A full disk names no file of its own.
        raise OSError(error.errno, f"{error.strerror or error}; nothing was changed at", str(path)) from None
    finally:
        part.unlink(missing_ok=True)


def remove_parts(folder: Path) -> None:
    """Remove what writers that were killed have left anywhere in `folder`, which nobody else writes to now."""
    for part in folder.rglob(".*.part"):
        part.unlink()


def write_bytes(path: Path, data: bytes) -> None:
    with atomic_path(path) as part:
        part.write_bytes(data)


def write_json(path: Path, value: object) -> None:
    """Write JSON.

    Raises:
        UserError: at a number that is not finite, for which JSON has no word.
    """
    try:
        text = json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False)
    except ValueError as error:
        raise UserError(f"{path}: a number is not finite ({first_line(error)}); nothing was written") from None
    write_bytes(path, f"{text}\n".encode())


def write_csv(path: Path, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Write a CSV; text that a spreadsheet would compute (`=…`, `@…`) gets a quote before it, which makes it text.

    A lone carriage return, which the csv module does not quote, becomes a blank.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows([_plain(cell) for cell in row] for row in rows)
    write_bytes(path, text.getvalue().encode())


def _plain(cell: object) -> object:
    if not isinstance(cell, str):
        return cell
    text = cell.replace("\r", " ")
    if not text.lstrip().startswith(FORMULA):
        return text
    try:
        float(text)
    except ValueError:
        return f"'{text}"
    return text


def write_safetensors(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None) -> None:
    """Write tensors in the order of their names, so that equal tensors give equal bytes."""
    rows = {name: tensors[name].detach().cpu().contiguous() for name in sorted(tensors)}
    write_bytes(path, save(rows, dict(metadata) if metadata else None))


def read_safetensors(path: Path) -> dict[str, Tensor]:
    """All tensors of a file.

    Raises:
        UserError: if the file is truncated or otherwise not safetensors.
    """
    try:
        with safe_open(path, "pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no dict)
    except SafetensorError as error:
        raise UserError(f"{path}: not a whole safetensors file ({error}); remove it and run its stage again") from None


def write_table(path: Path, rows: Sequence[Mapping[str, object]], schema: pa.Schema) -> None:
    with atomic_path(path) as part:
        pq.write_table(pa.Table.from_pylist(list(rows), schema=schema), part, write_page_checksum=True)


def read_table(path: Path, schema: pa.Schema, anywhere: Collection[str] = ()) -> list[dict]:
    """The rows of a table; the paths in the columns `anywhere` may lead where they like.

    Raises:
        UserError: if the file is no Parquet file, its columns are not those of `schema`, a value is null, a path leads
            out of its folder, or a position is none.
        FileNotFoundError: if there is no such file.
    """
    return [row for group in read_row_groups(path, schema, anywhere=anywhere) for row in group.to_pylist()]


def read_row_groups(
    path: Path, schema: pa.Schema, groups: Iterable[int] | None = None, anywhere: Collection[str] = ()
) -> Iterator[pa.Table]:
    """The row groups of a table one by one, all or those asked for; raises what `read_table` does."""
    with _parquet_errors(path), pq.ParquetFile(path, page_checksum_verification=True) as file:
        for field in schema:
            place = file.schema_arrow.get_field_index(field.name)
            found = file.schema_arrow.field(place).type if place >= 0 else "no such column"
            if found != field.type:
                raise UserError(f"{path}: column {field.name!r}: expected {field.type}, found {found}")
        for group in range(file.num_row_groups) if groups is None else groups:
            table = file.read_row_group(group, columns=schema.names).select(schema.names)
            table.validate(full=True)  # text that is no UTF-8 would raise only where it is read
            check_nulls(path, table)
            check_places(path, table.drop_columns(list(anywhere)))
            yield table


@contextlib.contextmanager
def _parquet_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError:
        raise FileNotFoundError(f"{path}: no such table; run the stage that writes it (dvc repro)") from None
    except (pa.ArrowException, OSError) as error:
        # Arrow reports what it cannot decode as an OSError as well, but without a number.
        if getattr(error, "errno", None) is not None:
            raise
        raise UserError(f"{path}: not a whole Parquet table ({first_line(error)}); run its stage again") from None


def sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


class Legend(TypedDict):
    """Of a prompt's attention maps: its tokens as words, and the positions of each entity's tokens."""

    prompt_id: str
    text: str
    tokens: list[str]
    entities: list[list[int]]


def read_legend(samples: Path) -> list[Legend]:
    """The legend of the attention maps in a folder of samples.

    Raises:
        UserError: if there is another, or an entity has a token that its prompt has not.
    """
    path, remedy = samples / "attention.json", "run its stage again (dvc repro)"
    legend = read_json(path, list[Legend], "a legend of maps", remedy)
    for entry in legend:
        inside(samples, entry["prompt_id"], str(path))
        tokens = {token for entity in entry["entities"] for token in entity}
        if wrong := sorted(tokens - {*range(len(entry["tokens"]))}):
            raise UserError(f"{path}: token {wrong[0]}: expected 0 to {len(entry['tokens']) - 1}; {remedy}")
    return legend
