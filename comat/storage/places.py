"""Paths that data name: none leads out of its folder."""

from __future__ import annotations

import re
from pathlib import Path

from comat.errors import UserError, clean
from comat.storage.prompt_text import whole

OUTSIDE = r"^\s*$|^[/\\]|^[A-Za-z]:|(^|[/\\])\.\.([/\\]|$)|\x00"
"""Blank, absolute or with `..`, as POSIX or Windows would read it."""


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
