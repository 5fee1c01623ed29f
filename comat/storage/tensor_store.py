"""Tensors by id: sharded, checksummed safetensors. An interrupted store goes on at most a minute and a batch before."""

from __future__ import annotations

import bisect
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from safetensors import safe_open
from torch import Tensor
from typing_extensions import TypedDict

from comat.errors import UserError
from comat.storage.json_files import read_json
from comat.storage.shard_progress import Row, read_progress, remove_progress, stacked, write_progress
from comat.storage.tables import atomic_path, read_row_groups, sha256, write_json, write_safetensors

CAPTION = pa.schema({"caption": pa.string()})
REMEDY = "remove the folder and run its stage again (dvc repro)"
LATENT_INDEX = pa.schema({"id": pa.string(), "shard": pa.string(), "row": pa.int32(), "caption": pa.string()})


class Note(TypedDict):
    """The bookkeeping of a shard: its checksum, and its rows in their order."""

    sha256: str
    ids: list[str]
    captions: list[str]


def read_note(shard: Path) -> Note:
    """The note of a shard."""
    return read_json(_note_path(shard), Note, "the note of a shard", "remove its folder and run its stage again")


class TensorStoreWriter:
    """Writes rows of named tensors into shards of `shard_size` rows; `close` writes the index.

    A finished shard is followed by its note (sha256, ids, captions), so a writer on the same folder skips what is
    there; from the first shard on that is missing or damaged all are written again, so that rows keep their order.
    What a writer adds leaves its memory with its shard. A shard that fills slowly is saved as it is by `save`, and
    taken up.
    """

    def __init__(self, folder: Path, shard_size: int, save_every: float = 60.0) -> None:
        self.folder, self.shard_size, self._save_every = folder, shard_size, save_every
        folder.mkdir(parents=True, exist_ok=True)
        self._count = 0
        while self._intact(_shard_name(self._count)):
            self._count += 1
        self._rows: list[Row] = read_progress(folder, self._count)
        ids = [*(id for note in self._notes() for id in note["ids"]), *(row.id for row in self._rows)]
        self._done, self.last = set(ids), ids[-1] if ids else None
        self._saved = time.monotonic()

    def _intact(self, shard: str) -> bool:
        path = self.folder / shard
        if not path.is_file() or not _note_path(path).is_file():
            return False
        return sha256(path) == read_note(path)["sha256"]

    def __contains__(self, id: object) -> bool:
        """Whether a row was there when the writer was made."""
        return id in self._done

    def add(self, id: str, tensors: Mapping[str, Tensor], caption: str) -> None:
        """Add a row; it is on disk once its shard is full, or by `save` or `close`."""
        self._rows.append(Row(id, {name: tensor.detach().cpu() for name, tensor in tensors.items()}, caption))
        if len(self._rows) == self.shard_size:
            self._flush()

    def save(self) -> None:
        """Save what has been added, where that was last done `save_every` seconds ago or more.

        Between batches: of one that is not whole nothing is taken up.
        """
        if time.monotonic() - self._saved < self._save_every:
            return
        if self._rows:
            write_progress(self.folder, self._count, self._rows)
        self._saved = time.monotonic()

    def _flush(self) -> None:
        if not self._rows:
            return
        name = _shard_name(self._count)
        write_safetensors(self.folder / name, stacked(self._rows))
        ids, captions = [row.id for row in self._rows], [row.caption for row in self._rows]
        note = {"sha256": sha256(self.folder / name), "ids": ids, "captions": captions}
        write_json(_note_path(self.folder / name), note)
        remove_progress(self.folder)
        self._count, self._rows = self._count + 1, []

    def close(self) -> None:
        """Write the last shard and the index."""
        self._flush()
        remove_progress(self.folder)  # of a shard that was full when its writer was killed
        path = self.folder / "index.parquet"
        with atomic_path(path) as part, pq.ParquetWriter(part, LATENT_INDEX, write_page_checksum=True) as index:
            for number, note in enumerate(self._notes()):
                size = len(note["ids"])
                columns = [note["ids"], [_shard_name(number)] * size, range(size), note["captions"]]
                index.write_table(pa.table(columns, schema=LATENT_INDEX))

    def _notes(self) -> Iterator[Note]:
        for number in range(self._count):
            yield read_note(self.folder / _shard_name(number))


def _shard_name(number: int) -> str:
    return f"{number:05d}.safetensors"


def _note_path(shard: Path) -> Path:
    return shard.with_suffix(".json")


class TensorStore:
    """Random access to the rows of a finished store; a shard is verified when a row of it is first read.

    Memory holds the ids and where their rows are, but no shard, and of the captions those of one row group.
    """

    def __init__(self, folder: Path) -> None:
        self.folder, self._index = folder, folder / "index.parquet"
        ids, shards, rows, self._starts = [], [], [], [0]
        for group in read_row_groups(self._index, LATENT_INDEX):
            ids += group["id"].chunks
            shards += group["shard"].dictionary_encode().chunks
            rows += group["row"].chunks
            self._starts.append(self._starts[-1] + len(group))
        self._ids = pa.chunked_array(ids, pa.string())
        self._shards = pa.chunked_array(shards, pa.dictionary(pa.int32(), pa.string()))
        self._rows = pa.chunked_array(rows, pa.int32())
        self._order = pc.sort_indices(self._ids).to_numpy().astype(np.int32)
        self._held, self._captions = -1, pa.chunked_array([], pa.string())  # a row group, none yet, and its captions
        self._verified: set[str] = set()

    def __len__(self) -> int:
        return len(self._ids)

    @property
    def ids(self) -> list[str]:
        """In the order in which they were added."""
        return self._ids.to_pylist()

    def sorted_id(self, place: int) -> str:
        """The id at a place of all ids, sorted."""
        return self._ids[self._order[place]].as_py()

    def _find(self, id: str) -> int | None:
        place = bisect.bisect_left(range(len(self)), id, key=self.sorted_id)
        return int(self._order[place]) if place < len(self) and self.sorted_id(place) == id else None

    def _at(self, id: str) -> int:
        at = self._find(id)
        if at is None:
            raise KeyError(id)
        return at

    def __contains__(self, id: str) -> bool:
        return self._find(id) is not None

    def caption(self, id: str) -> str:
        at = self._at(id)
        group = bisect.bisect_right(self._starts, at) - 1
        if self._held != group:
            (table,) = read_row_groups(self._index, CAPTION, [group])
            self._held, self._captions = group, table["caption"]
        return self._captions[at - self._starts[group]].as_py()

    def __getitem__(self, id: str) -> dict[str, Tensor]:
        """The tensors of a row.

        Raises:
            KeyError: for an unknown id.
            UserError: if the shard is missing, truncated or changed.
        """
        at = self._at(id)
        path, row = self.folder / self._shards[at].as_py(), self._rows[at].as_py()
        if path.name != self._shards[at].as_py():
            raise UserError(f"{self._index}: {self._shards[at].as_py()!r} is no file beside it; {REMEDY}")
        self._verify(path)
        if not 0 <= row < len(read_note(path)["ids"]):
            raise UserError(f"{self._index}: row {row} of {id!r} is outside its shard; {REMEDY}")
        # Opened for this row alone: a mapped shard would count towards memory as its rows are touched.
        with safe_open(path, "pt") as file:
            return {name: file.get_slice(name)[row] for name in file.keys()}  # noqa: SIM118 (no dict)

    def _verify(self, path: Path) -> None:
        if path.name in self._verified:
            return
        if not path.exists():
            raise UserError(f"{path}: this shard is missing; {REMEDY}")
        if not _note_path(path).exists():
            raise UserError(f"{_note_path(path)}: the note of a shard is missing; {REMEDY}")
        if sha256(path) != read_note(path)["sha256"]:
            raise UserError(f"{path}: this shard is truncated or was changed (sha256 differs); {REMEDY}")
        self._verified.add(path.name)
