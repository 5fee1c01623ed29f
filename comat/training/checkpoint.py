"""States of interrupted runs: tensors and notes in one safetensors file that carries its own checksum."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor
from torch.optim import Optimizer

from comat.errors import UserError, first_line
from comat.storage.tables import atomic_path

KINDS = {torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16", torch.int64: "I64"}
"""Types of the tensors of a state, as safetensors calls them."""


def write_state(path: Path, tensors: Mapping[str, Tensor], notes: Mapping[str, object]) -> None:
    """Write tensors and JSON-able notes, whole or not at all; the host holds one tensor at a time beside them."""
    texts = {name: json.dumps(value) for name, value in notes.items()}
    names = sorted(tensors, key=lambda name: (-tensors[name].element_size(), name))  # each aligned to its own size
    header = _header(names, tensors, {**texts, "sha256": _checksum(tensors, texts)})
    with atomic_path(path) as part, part.open("wb") as file:
        file.write(len(header).to_bytes(8, "little") + header)
        for name in names:
            file.write(_bytes(tensors[name]))


def moments(name: str, optimizer: Optimizer) -> dict[str, Tensor]:
    """What an optimizer remembers of its weights, as tensors of a state: name.number.key."""
    state = optimizer.state_dict()["state"]
    return {f"{name}.{i}.{key}": value for i, entry in state.items() for key, value in entry.items()}


def restore_moments(optimizer: Optimizer, tensors: Mapping[str, Tensor]) -> None:
    """Give an optimizer of as many weights what `moments` has written, `below` its name."""
    packed: dict[int, dict[str, Tensor]] = {}
    for name, value in tensors.items():
        index, key = name.split(".", 1)
        packed.setdefault(int(index), {})[key] = value
    optimizer.load_state_dict({"state": packed, "param_groups": optimizer.state_dict()["param_groups"]})


def below(tensors: Mapping[str, Tensor], name: str) -> dict[str, Tensor]:
    """The tensors whose names begin with `name` and a dot, without these."""
    prefix = f"{name}."
    return {own.removeprefix(prefix): value for own, value in tensors.items() if own.startswith(prefix)}


def _header(names: Iterable[str], tensors: Mapping[str, Tensor], texts: Mapping[str, str]) -> bytes:
    """What a safetensors file begins with. Its library would copy all tensors to the host first, then to one piece."""
    entries: dict[str, object] = {"__metadata__": dict(texts)}
    at = 0
    for name in names:
        value = tensors[name]
        entries[name] = {"dtype": KINDS[value.dtype], "shape": [*value.shape], "data_offsets": [at, at + value.nbytes]}
        at += value.nbytes
    text = json.dumps(entries).encode()
    return text + b" " * (-len(text) % 8)


def _bytes(tensor: Tensor) -> memoryview:
    return tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data


def read_state(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The tensors of a state, which are pages of the file until they are written to, and its notes, as JSON gives them.

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
        tensor = tensors[name]
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(_bytes(tensor))
    return digest.hexdigest()
