"""States of interrupted runs: tensors and notes in one safetensors file that carries its own checksum."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from comat.errors import UserError, first_line
from comat.storage.tables import write_safetensors


def write_state(path: Path, tensors: Mapping[str, Tensor], notes: Mapping[str, object]) -> None:
    """Write tensors and JSON-able notes, whole or not at all."""
    texts = {name: json.dumps(value) for name, value in notes.items()}
    write_safetensors(path, tensors, {**texts, "sha256": _checksum(tensors, texts)})


def read_state(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The tensors of a state and its notes, as JSON gives them.

    Raises:
        UserError: if a byte of it is not what was written; only the user can say whether hours of work may be redone.
    """
    try:
        with safe_open(path, "pt") as file:
            texts = dict(file.metadata() or {})
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no dict)
    except SafetensorError as error:
        raise _damaged(path, first_line(error)) from None
    if texts.pop("sha256", None) != _checksum(tensors, texts):
        raise _damaged(path, "its sha256 differs")
    return tensors, {name: json.loads(text) for name, text in texts.items()}


def _damaged(path: Path, reason: str) -> UserError:
    return UserError(
        f"{path}: this saved state is truncated or damaged ({reason}); check the disk, then remove the file: its stage "
        "starts over"
    )


def _checksum(tensors: Mapping[str, Tensor], texts: Mapping[str, str]) -> str:
    digest = hashlib.sha256(json.dumps(texts, sort_keys=True).encode())
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu().contiguous()
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
