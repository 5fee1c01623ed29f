"""Paths and positions that data name: none leads out of its folder, and none counts from the end."""

from __future__ import annotations

import re
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from comat.errors import UserError, clean
from comat.storage.prompt_text import whole

OUTSIDE = r"^\s*$|^[/\\]|^[A-Za-z]:|(^|[/\\])\.\.([/\\]|$)|\x00"
"""Blank, absolute or with `..`, as POSIX or Windows would read it."""
PATHS = ("path", "prompt_id", "shard")
"""Columns that name files, or parts of names."""
POSITIONS = ("row", "entity", "noun_tokens", "tokens")
"""Columns that count from zero."""
REMEDY = "run its stage again (dvc repro)"


def inside(folder: Path, name: str, where: str) -> Path:
    """The path of a file that a listing names, which must lead to a place in `folder`.

    Raises:
        UserError: saying `where`, if the name is blank, absolute or goes up.
    """
    if re.search(OUTSIDE, whole(name, where)):
        raise UserError(
            f"{where}: file name {clean(repr(name), 80)}: expected a path inside {folder}, relative and without '..'"
        )
    return folder / name


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
