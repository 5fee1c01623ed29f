"""Images on disk: PNG in and out, and real images with captions in COCO's layout."""

from __future__ import annotations

import io
import json
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from comat.errors import UserError
from comat.randomness import python_random
from comat.store import write_bytes


def to_bytes(image: Tensor) -> np.ndarray:
    """A (3, H, W) image in [0, 1] as (H, W, 3) uint8."""
    return (image.detach().float().cpu().clamp(0, 1) * 255).round().byte().permute(1, 2, 0).numpy()


def write_png(path: Path, image: Tensor) -> None:
    """Write a (3, H, W) image in [0, 1]."""
    write_image(path, Image.fromarray(to_bytes(image)))


def write_image(path: Path, image: Image.Image) -> None:
    """Write a PNG, whole or not at all."""
    data = io.BytesIO()
    image.save(data, "PNG")
    write_bytes(path, data.getvalue())


def read_rgb(path: Path) -> np.ndarray:
    """Read an image as (H, W, 3) uint8.

    Raises:
        UserError: if it is missing or not an image.
    """
    try:
        with Image.open(path) as image:
            return np.asarray(image.convert("RGB"))
    except FileNotFoundError:
        raise UserError(f"{path}: this image is missing; run the samples stage again (dvc repro)") from None
    except (UnidentifiedImageError, OSError) as error:
        raise UserError(f"{path}: not readable as an image ({error}); run its stage again") from None


def fit(image: Image.Image, size: int) -> Tensor:
    """Upright, RGB, resized to cover a square of `size` px and cropped to its centre: (3, size, size) in [0, 1]."""
    upright = ImageOps.exif_transpose(image).convert("RGB")
    square = ImageOps.fit(upright, (size, size), Image.Resampling.LANCZOS)
    return torch.from_numpy(np.array(square)).permute(2, 0, 1).float() / 255


def captions_by_file(path: Path, seed: int) -> list[tuple[str, str]]:
    """(file name, caption) of a COCO captions file, sorted; of several captions of an image one is drawn by seed.

    Raises:
        UserError: if the file is missing or not a COCO captions file.
    """
    try:
        tables = json.loads(path.read_text(encoding="utf-8"))
        names = {row["id"]: row["file_name"] for row in tables["images"]}
        captions: dict[str, list[str]] = {}
        for row in tables["annotations"]:
            captions.setdefault(names[row["image_id"]], []).append(" ".join(row["caption"].split()))
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; expected a COCO captions file (captions_train2017.json)") from None
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path}: not a COCO captions file ({type(error).__name__}: {error})") from None
    return [(name, python_random(seed, "caption", name).choice(captions[name])) for name in sorted(captions)]


def readable(folder: Path, pairs: Iterable[tuple[str, str]], size: int, skipped: dict[str, int]):
    """Yield (file name, caption, image (3, size, size)); what cannot be read is counted in `skipped`."""
    for name, caption in pairs:
        try:
            with Image.open(folder / name) as image:
                yield name, caption, fit(image, size)
        except FileNotFoundError:
            skipped["missing"] = skipped.get("missing", 0) + 1
        except (UnidentifiedImageError, OSError, SyntaxError):
            skipped["unreadable"] = skipped.get("unreadable", 0) + 1
