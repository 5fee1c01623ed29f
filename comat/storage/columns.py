"""What the columns of a table hold: no nulls, no paths that lead elsewhere, no positions that count from the end."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from comat.errors import UserError, clean
from comat.storage.places import OUTSIDE

MAY_BE_NULL = ("reason", "evaluation", "match", "corrupted", "log_p_corrupted", "sensitivity")
PATHS = ("path", "prompt_id", "shard")
"""Columns that name files, or parts of names."""
POSITIONS = ("row", "entity", "noun_tokens", "tokens")
"""Columns that count from zero."""
REMEDY = "run its stage again (dvc repro)"


def check_nulls(path: Path, table: pa.Table) -> None:
    """See that no value is null: no stage writes one in another column, but an editor may.

    Raises:
        UserError: naming the column.
    """
    for name in table.column_names:
        values = table[name]
        nulls = 0 if name in MAY_BE_NULL else values.null_count
        while pa.types.is_list(values.type):
            values = pa.chunked_array([chunk.flatten() for chunk in values.chunks], values.type.value_type)
            nulls += values.null_count
        if nulls:
            raise UserError(f"{path}: column {name!r}: {nulls} nulls, expected none; {REMEDY}")


def check_places(path: Path, table: pa.Table) -> None:
    """See that the paths of a table lead nowhere else, and that its positions are some.

    Raises:
        UserError: naming the column and what stands there.
    """
    # A prompt's id is part of the names of its images; that of an image may hold what a file system allows.
    ids = ("id",) if "split" in table.column_names else ()
    for name in (*PATHS, *ids):
        if name in table.column_names:
            found = table[name].filter(pc.match_substring_regex(table[name], OUTSIDE))
            if len(found):
                value = clean(repr(found[0].as_py()), 80)
                raise UserError(
                    f"{path}: column {name!r}: {value} leads out of its folder: expected a relative path without '..'; "
                    f"{REMEDY}"
                )
    for name in POSITIONS:
        if name in table.column_names:
            values = table[name]
            while pa.types.is_list(values.type):
                values = pc.list_flatten(values)
            least = pc.min(values).as_py()
            if least is not None and least < 0:
                raise UserError(f"{path}: column {name!r}: {least} is no position: expected 0 or more; {REMEDY}")
