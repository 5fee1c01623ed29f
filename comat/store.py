"""What stages hand to each other: Parquet tables with declared schemas and sharded, checksummed safetensors.

Every file appears whole or not at all; a store that was interrupted goes on after its last finished shard.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor
from typing_extensions import TypedDict

from comat.errors import UserError, first_line
from comat.json_files import read_json

PROMPTS = pa.schema(
    {"id": pa.string(), "text": pa.string(), "source": pa.string(), "category": pa.string(), "split": pa.string()}
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
LATENT_INDEX = pa.schema({"id": pa.string(), "shard": pa.string(), "row": pa.int32(), "caption": pa.string()})
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
    write_bytes(path, (json.dumps(value, indent=2, ensure_ascii=False) + "\n").encode())


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


def read_table(path: Path, schema: pa.Schema) -> list[dict]:
    """The rows of a table.

    Raises:
        UserError: if the file is no Parquet file or its columns are not those of `schema`.
        FileNotFoundError: if there is no such file.
    """
    try:
        table = pq.read_table(path, page_checksum_verification=True)
        table.validate(full=True)  # text that is no UTF-8 would raise only where it is read
    except FileNotFoundError:
        raise FileNotFoundError(f"{path}: no such table; run the stage that writes it (dvc repro)") from None
    except (pa.ArrowException, OSError) as error:
        # Arrow reports what it cannot decode as an OSError as well, but without a number.
        if getattr(error, "errno", None) is not None:
            raise
        raise UserError(f"{path}: not a whole Parquet table ({first_line(error)}); run its stage again") from None
    for field in schema:
        found = table.schema.field(field.name).type if field.name in table.column_names else "no such column"
        if found != field.type:
            raise UserError(f"{path}: column {field.name!r}: expected {field.type}, found {found}")
    return table.select(schema.names).to_pylist()


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
    """The legend of the attention maps in a folder of samples."""
    return read_json(samples / "attention.json", list[Legend], "a legend of maps", "run its stage again (dvc repro)")


class Shard(TypedDict):
    """The bookkeeping of a shard: its file, and its rows in their order."""

    name: str
    sha256: str
    ids: list[str]
    captions: list[str]


def read_shards(path: Path) -> list[Shard]:
    """The bookkeeping of a store."""
    return read_json(path, list[Shard], "the bookkeeping of shards", "remove its folder and run its stage again")


class TensorStoreWriter:
    """Writes rows of named tensors into shards of `shard_size`; `close` writes the index.

    A finished shard is followed by its own line of bookkeeping, so a writer on the same folder skips what is there.
    From the first shard on that is missing or damaged all are written again, so that rows keep their order.
    """

    def __init__(self, folder: Path, shard_size: int) -> None:
        self.folder, self.shard_size = folder, shard_size
        self._journal = folder / "shards.json"
        folder.mkdir(parents=True, exist_ok=True)
        shards = read_shards(self._journal) if self._journal.exists() else []
        self._shards = list(itertools.takewhile(self._intact, shards))
        self._done = {id for shard in self._shards for id in shard["ids"]}
        self._rows: list[tuple[str, dict[str, Tensor], str]] = []

    def _intact(self, shard: Shard) -> bool:
        path = self.folder / shard["name"]
        return path.is_file() and sha256(path) == shard["sha256"]

    def __contains__(self, id: str) -> bool:
        return id in self._done

    @property
    def room(self) -> int:
        """Rows until the shard is full."""
        return self.shard_size - len(self._rows)

    def add(self, id: str, tensors: Mapping[str, Tensor], caption: str) -> None:
        """Add a row; it is on disk once its shard is full or the writer closed."""
        self._rows.append((id, {name: tensor.detach().cpu() for name, tensor in tensors.items()}, caption))
        if len(self._rows) == self.shard_size:
            self._flush()

    def _flush(self) -> None:
        if not self._rows:
            return
        name = f"{len(self._shards):05d}.safetensors"
        stacked = {key: torch.stack([row[1][key] for row in self._rows]) for key in self._rows[0][1]}
        write_safetensors(self.folder / name, stacked)
        ids, captions = [row[0] for row in self._rows], [row[2] for row in self._rows]
        shard = {"name": name, "sha256": sha256(self.folder / name), "ids": ids, "captions": captions}
        self._shards.append(shard)
        write_json(self._journal, self._shards)
        self._rows = []

    def close(self) -> None:
        """Write the last shard and the index."""
        self._flush()
        write_json(self._journal, self._shards)  # a store without rows has one too
        rows = [
            {"id": id, "shard": shard["name"], "row": row, "caption": caption}
            for shard in self._shards
            for row, (id, caption) in enumerate(zip(shard["ids"], shard["captions"], strict=True))
        ]
        write_table(self.folder / "index.parquet", rows, LATENT_INDEX)


class TensorStore:
    """Random access to the rows of a finished store; a shard is verified when it is first opened."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._index = {row["id"]: row for row in read_table(folder / "index.parquet", LATENT_INDEX)}
        self._sums = {shard["name"]: shard["sha256"] for shard in read_shards(folder / "shards.json")}
        self._open: dict[str, safe_open] = {}

    @property
    def ids(self) -> list[str]:
        return list(self._index)

    def __contains__(self, id: str) -> bool:
        return id in self._index

    def caption(self, id: str) -> str:
        return self._index[id]["caption"]

    def __getitem__(self, id: str) -> dict[str, Tensor]:
        """The tensors of a row.

        Raises:
            KeyError: for an unknown id.
            UserError: if the shard is missing, truncated or changed.
        """
        row = self._index[id]
        file = self._shard(row["shard"])
        return {name: file.get_slice(name)[row["row"]] for name in file.keys()}  # noqa: SIM118 (no dict)

    def _shard(self, name: str) -> safe_open:
        if name not in self._open:
            path = self.folder / name
            remedy = "remove the folder and run its stage again (dvc repro)"
            if not path.exists():
                raise UserError(f"{path}: this shard is missing; {remedy}")
            if sha256(path) != self._sums.get(name):
                raise UserError(f"{path}: this shard is truncated or was changed (sha256 differs); {remedy}")
            self._open[name] = safe_open(path, "pt")
        return self._open[name]
