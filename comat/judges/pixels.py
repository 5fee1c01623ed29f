"""Drawn images as what models read, batch by batch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from comat.judges.benchmark import Drawn
from comat.storage.images import read_rgb


def pixels_of(paths: Sequence[Path], device: torch.device) -> Tensor:
    """Images of one size → (B, 3, H, W) in [0, 1].

    Raises:
        UserError: if an image is missing or unreadable.
    """
    pixels = torch.from_numpy(np.stack([read_rgb(path) for path in paths]))
    return pixels.permute(0, 3, 1, 2).float().to(device) / 255


def batches_of(
    images: Sequence[Drawn], folder: Path, size: int, device: torch.device
) -> Iterator[tuple[Tensor, list[str]]]:
    """The pixels of `size` images at a time, in order, and their prompts; raises what `pixels_of` does."""
    for at in range(0, len(images), size):
        part = images[at : at + size]
        yield pixels_of([folder / image.path for image in part], device), [image.text for image in part]
