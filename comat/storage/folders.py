"""What stands in a folder, and where one will be."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from comat.errors import UserError


def work_root(project: Path = Path()) -> Path:
    """Where stages work and results are remembered: the folder `COMAT_WORK_DIR`, or the project's own if unset."""
    return Path(os.environ.get("COMAT_WORK_DIR") or project / ".work")


def files_below(folder: Path, hidden: bool = True) -> list[Path]:
    """The files of a folder at any depth, sorted; those of linked folders as well, as whoever opens them finds them.

    Not `hidden`: without those that are, or that hidden folders hold, and each but once where a link leads to another
    place of the folder. A link to a folder that it stands in is left out.

    Raises:
        UserError: if a folder cannot be read.
    """
    top = folder.resolve()
    return sorted(_below(folder, hidden, top, frozenset({top})))


def _below(folder: Path, hidden: bool, top: Path, above: frozenset[Path]) -> Iterator[Path]:
    try:
        entries = list(os.scandir(folder))
    except PermissionError as error:
        raise UserError(f"{folder}: {error.strerror}; let it be read, or give a folder without it") from None
    for entry in entries:
        path = folder / entry.name
        if entry.name.startswith(".") and not hidden:
            continue
        try:
            is_file, is_folder = entry.is_file(), entry.is_dir()
        except OSError:  # a link that leads to itself
            continue
        if is_file:
            yield path
        if not is_folder:
            continue
        real = path.resolve()
        again = real.is_relative_to(top) and entry.is_symlink() and not hidden
        up = any(one.is_relative_to(real) for one in above)
        if not up and not again:
            yield from _below(path, hidden, top, above | {real})


def nearest(place: Path) -> Path:
    """`place`, or the nearest folder above it that is there."""
    return next(path for path in (place.resolve(), *place.resolve().parents) if path.exists())
