"""Parquet files that a user brings, whose errors are a line."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from comat.errors import UserError, first_line


def parquet_schema(file: Path) -> pa.Schema:
    """The columns of a file.

    Raises:
        UserError: if it is no whole Parquet file.
    """
    with _whole(file):
        return pq.read_schema(file)


def parquet_rows(file: Path, columns: Sequence[str]) -> Iterator[dict[str, Any]]:
    """The rows, with no other columns than these.

    Raises:
        UserError: if it is no whole Parquet file, has a column twice, or holds text that is not UTF-8.
    """
    names = parquet_schema(file).names
    twice = next((name for name in columns if names.count(name) > 1), None)
    if twice:
        raise UserError(f"{file}: column {twice!r} stands twice; remove or rename one")
    with _whole(file), pq.ParquetFile(file) as table:
        for batch in table.iter_batches(columns=list(columns)):
            batch.validate(full=True)  # text that is no UTF-8 would raise only where it is read
            yield from batch.to_pylist()


@contextlib.contextmanager
def _whole(file: Path) -> Iterator[None]:
    try:
        yield
    except (pa.ArrowException, OSError) as error:
        if getattr(error, "errno", None) is not None:
            raise
        # Arrow reports what it cannot decode as an OSError as well, but without a number.
        raise UserError(f"{file}: not a whole Parquet file ({first_line(error)})") from None
