"""Weights of frozen models from one .pth file: complete and of the right model, or an error."""

from __future__ import annotations

import pickle
from pathlib import Path

import torch
from torch import Tensor, nn
from transformers.utils import cached_file

from comat.errors import UserError, first_line
from comat.models.loading import loaded


def read_weights(model: str, file: str, revision: str | None) -> dict[str, Tensor]:
    """Read `file` of a hub id or folder `model`.

    Raises:
        UserError: if there is no such file, or it is not a file of weights.
    """

    def find() -> Path:
        found = cached_file(model, file, revision=revision)
        assert found is not None  # it raises where it finds none
        return Path(found)

    path = loaded(model, file, find)
    try:
        weights = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, OSError) as error:
        raise UserError(f"{path}: not readable as weights: {first_line(error)}; download it again") from None
    if not isinstance(weights, dict):
        raise UserError(f"{path}: expected weights by name, got {type(weights).__name__}")
    return weights


def load_weights(module: nn.Module, weights: dict[str, Tensor], what: str) -> None:
    """Put `weights` into `module`, all of whose own must be there; others that a file also holds are left out.

    Raises:
        UserError: if weights are missing or of another shape.
    """
    try:
        missing = module.load_state_dict(weights, strict=False).missing_keys
    except RuntimeError as error:
        shapes = [line.strip() for line in str(error).splitlines() if "size mismatch" in line]
        raise UserError(f"{what}: weights of another model: {(shapes or [first_line(error)])[0]}") from None
    if missing:
        raise UserError(f"{what}: weights of another model: {len(missing)} are missing, the first is {missing[0]}")
