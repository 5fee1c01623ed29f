"""Images on disk: PNG in and out."""

from __future__ import annotations

import io
import os
import struct
from pathlib import Path

import numpy as np
from PIL import Image
from torch import Tensor

from comat.errors import UserError
from comat.storage.tables import write_bytes

BROKEN = (OSError, SyntaxError, ValueError, TypeError, EOFError, struct.error)
"""What Pillow raises for files that are damaged or no images."""
READERS = min(4, os.cpu_count() or 1)
"""Threads that read images ahead."""


def to_bytes(image: Tensor) -> np.ndarray:
    """A (3, H, W) image in [0, 1] as (H, W, 3) uint8."""
    return (image.detach().float().cpu().clamp(0, 1) * 255).round().byte().permute(1, 2, 0).numpy()


def write_png(path: Path, image: Tensor) -> None:
    """Write a (3, H, W) image in [0, 1]."""
    write_image(path, Image.fromarray(to_bytes(image)))


def write_image(path: Path, image: Image.Image) -> None:
    """Write a PNG, whole or not at all."""
    write_bytes(path, png(image))


def png(image: Image.Image) -> bytes:
    """The bytes of a PNG file."""
    data = io.BytesIO()
    image.save(data, "PNG")
    return data.getvalue()


EXACT = 128
"""Pixels of the longer side up to which WebP is without loss."""
QUALITY = 82
"""Of WebP, for larger images."""


def webp(image: Image.Image, longest: int) -> bytes:
    """The bytes of a WebP file, its longer side at most `longest` pixels; small images exactly."""
    small = image.copy()
    small.thumbnail((longest, longest), Image.Resampling.LANCZOS)
    data = io.BytesIO()
    small.save(data, "WEBP", lossless=max(small.size) <= EXACT, quality=QUALITY)
    return data.getvalue()


def read_rgb(path: Path) -> np.ndarray:
    """Read an image as (H, W, 3) uint8.

    Raises:
        UserError: if it is missing or not an image.
    """
    try:
        with Image.open(path) as image:
            return np.asarray(image.convert("RGB"))
    except FileNotFoundError:
        raise UserError(f"{path}: this image is missing; run its stage again (dvc repro)") from None
    except (*BROKEN, Image.DecompressionBombError) as error:
        raise UserError(f"{path}: not readable as an image ({error}); run its stage again") from None
