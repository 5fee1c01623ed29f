"""What stands in a folder."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path


def files_below(folder: Path, hidden: bool = True) -> list[Path]:
    """The files of a folder at any depth, sorted; those of linked folders as well, as whoever opens them finds them.

    Not `hidden`: without those that are, or that hidden folders hold. A link to a folder that it stands in is left out.

    Raises:
        OSError: if a folder cannot be read.
    """
    return sorted(_below(folder, hidden, frozenset({folder.resolve()})))


def _below(folder: Path, hidden: bool, above: frozenset[Path]) -> Iterator[Path]:
    for entry in os.scandir(folder):
        path = folder / entry.name
        if entry.name.startswith(".") and not hidden:
            continue
        if entry.is_dir():
            real = path.resolve()
            if real not in above:
                yield from _below(path, hidden, above | {real})
        elif entry.is_file():
            yield path
