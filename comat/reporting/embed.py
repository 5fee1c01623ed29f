"""Images inside a page: small ones exactly, large ones scaled down and compressed."""

from __future__ import annotations

import base64
from pathlib import Path

from PIL import Image

from comat.storage.images import read_rgb, webp


def data_uri(path: Path, longest: int) -> str:
    """The image as a `data:` address, WebP, its longer side at most `longest` pixels.

    Raises:
        UserError: if it is missing or not an image.
    """
    return uri_of(Image.fromarray(read_rgb(path)), longest)


def uri_of(image: Image.Image, longest: int) -> str:
    """The same of an image in memory."""
    return "data:image/webp;base64," + base64.b64encode(webp(image, longest)).decode()
