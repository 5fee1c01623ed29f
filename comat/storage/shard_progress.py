"""The rows of a shard that is not full yet, so that a kill loses a minute of drawing and not a shard of it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from comat.storage.tables import write_safetensors

FILE = "unfinished.safetensors"


class Row(NamedTuple):
    """What a store keeps of one image or prompt."""

    id: str
    tensors: Mapping[str, Tensor]
    caption: str


def stacked(rows: Sequence[Row]) -> dict[str, Tensor]:
    """The tensors of rows by name, the rows along the first dimension."""
    return {name: torch.stack([row.tensors[name] for row in rows]) for name in rows[0].tensors}


def write_progress(folder: Path, shard: int, rows: Sequence[Row]) -> None:
    """Write the rows that shard number `shard` has so far, whole or not at all."""
    tensors = stacked(rows)
    texts = json.dumps({"shard": shard, "ids": [row.id for row in rows], "captions": [row.caption for row in rows]})
    write_safetensors(folder / FILE, tensors, {"rows": texts, "sha256": _checksum(tensors, texts)})


def read_progress(folder: Path, shard: int) -> list[Row]:
    """The rows that shard number `shard` had; none where there are none, or a byte of them is not what was written."""
    path = folder / FILE
    if not path.is_file():
        return []
    try:
        with safe_open(path, "pt") as file:
            texts = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no dict)
    except SafetensorError:
        return []
    if texts.get("sha256") != _checksum(tensors, texts.get("rows", "")):
        return []
    listed = json.loads(texts["rows"])
    if listed["shard"] != shard:
        return []
    rows = zip(listed["ids"], listed["captions"], strict=True)
    return [Row(id, {name: t[at].clone() for name, t in tensors.items()}, text) for at, (id, text) in enumerate(rows)]


def remove_progress(folder: Path) -> None:
    (folder / FILE).unlink(missing_ok=True)


def _checksum(tensors: Mapping[str, Tensor], texts: str) -> str:
    digest = hashlib.sha256(texts.encode())
    for name in sorted(tensors):
        digest.update(tensors[name].contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
