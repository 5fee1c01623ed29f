"""Images inside a page: small ones exactly, large ones scaled down and compressed."""

from __future__ import annotations

import base64
import io
from pathlib import Path

from PIL import Image

from comat.storage.images import read_rgb

EXACT = 128
"""Pixels of the longer side up to which an image is embedded without loss."""
QUALITY = 82
"""Of WebP, for larger images."""


def data_uri(path: Path, longest: int) -> str:
    """The image as a `data:` address, WebP, its longer side at most `longest` pixels.

    Raises:
        UserError: if it is missing or not an image.
    """
    image = Image.fromarray(read_rgb(path))
    image.thumbnail((longest, longest), Image.Resampling.LANCZOS)
    data = io.BytesIO()
    image.save(data, "WEBP", lossless=max(image.size) <= EXACT, quality=QUALITY)
    return "data:image/webp;base64," + base64.b64encode(data.getvalue()).decode()
