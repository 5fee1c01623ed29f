"""Drawn images as what models read, batch by batch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from comat.judges.benchmark import Drawn
from comat.storage.images import read_rgb


def as_pixels(images: Sequence[np.ndarray], device: torch.device) -> Tensor:
    """(H, W, 3) uint8 images of one size → (B, 3, H, W) in [0, 1]."""
    return torch.from_numpy(np.stack(images)).to(device).permute(0, 3, 1, 2).float() / 255


def pixels_of(paths: Sequence[Path], device: torch.device) -> Tensor:
    """Images of one size → (B, 3, H, W) in [0, 1].

    Raises:
        UserError: if an image is missing or unreadable.
    """
    return as_pixels([read_rgb(path) for path in paths], device)


def batches_of(
    images: Sequence[Drawn], folder: Path, size: int, device: torch.device
) -> Iterator[tuple[Tensor, list[str]]]:
    """The pixels of `size` images at a time, in order, and their prompts; raises what `pixels_of` does."""
    for at in range(0, len(images), size):
        part = images[at : at + size]
        yield pixels_of([folder / image.path for image in part], device), [image.text for image in part]
