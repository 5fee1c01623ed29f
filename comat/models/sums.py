"""Checksums of models' files, of which a large one is read once: what it was is remembered by size and times.

The stages of a pipeline, and each process of a stage, look at the same gigabytes of a local base model again. The
memory stands in `.work/sums` of the project (`comat.storage.memory`), one small file for each.
"""

from __future__ import annotations

import contextlib
import hashlib
import time
from collections.abc import Callable
from pathlib import Path

from typing_extensions import TypedDict

from comat.errors import UserError
from comat.storage.json_files import read_json
from comat.storage.memory import memory_folder

PIECE = 1 << 24
"""Bytes read at once; what is smaller than one is never remembered."""
SETTLED = 2.0
"""Seconds: a file that was written to more recently may be so again within the same tick of its clock."""


class Known(TypedDict):
    path: str
    bytes: int
    mtime_ns: int
    ctime_ns: int  # no tool sets it back, as some do with the other
    sha256: str


def sum_of_file(path: Path, read: Callable[[int], object] = lambda count: None) -> str:
    """The sha256 of a file of any size, read unless it is known; `read` is told of every piece."""
    path = path.resolve()
    state = path.stat()
    memory = memory_folder("sums") / f"{_digest(str(path))}.json"
    own = _known(path)
    if state.st_size >= PIECE and (found := _recalled(memory)) and found == {**own, "sha256": found["sha256"]}:
        read(state.st_size)
        return found["sha256"]
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while piece := file.read(PIECE):
            digest.update(piece)
            read(len(piece))
    if state.st_size >= PIECE and own == _known(path) and time.time() - state.st_ctime >= SETTLED:
        from comat.storage.tables import write_json  # whose import takes seconds, and which is needed once a file

        with contextlib.suppress(OSError):  # it is read again next time
            write_json(memory, {**own, "sha256": digest.hexdigest()})
    return digest.hexdigest()


def _known(path: Path) -> Known:
    """What is known of a file that has not been read."""
    state = path.stat()
    return Known(path=str(path), bytes=state.st_size, mtime_ns=state.st_mtime_ns, ctime_ns=state.st_ctime_ns, sha256="")


def _recalled(memory: Path) -> Known | None:
    if not memory.is_file():
        return None
    try:
        return read_json(memory, Known, "a remembered checksum", "remove it")
    except UserError:
        return None


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:32]
