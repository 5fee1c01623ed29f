"""Images whose captions are true: renders of the shapes world, photos in COCO's layout, or samples of a model."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from comat.corpora.coco import Tally, captions_by_file, read_photos
from comat.errors import UserError, say
from comat.judges.renders import clean_renders
from comat.params import Params
from comat.randomness import python_random
from comat.storage.images import read_rgb
from comat.storage.tables import IMAGE_INDEX, PROMPTS, read_table

T = TypeVar("T")


@dataclass(frozen=True)
class Captioned:
    """An image (3, H, W) in [0, 1] and what it shows."""

    name: str
    caption: str
    image: Tensor


def captioned_images(
    params: Params, prompts: Path, images: Path | None, captions: Path | None, count: int
) -> Iterator[Captioned]:
    """At most `count` images (0: all), drawn by seed.

    Without `images` they are clean renders of the held-out prompts of the shapes world; with `captions` photos that
    this COCO captions file lists, resized and cropped to the resolution of the parameters; otherwise samples that the
    folder's `index.parquet` lists, each with its prompt.

    Raises:
        UserError: if a file is missing or not what it should be.
    """
    if images is None:
        return _renders(params, prompts, count)
    if captions is None:
        return _samples(images, params.seed, count)
    return _photos(params, images, captions, count)


def _renders(params: Params, prompts: Path, count: int) -> Iterator[Captioned]:
    rows = [row for row in read_table(prompts / "prompts.parquet", PROMPTS) if row["split"] == "test"]
    rows = _drawn(rows, params.seed, count)
    try:
        images = list(clean_renders([row["text"] for row in rows], params.resolution, params.seed))
    except ValueError as error:
        raise UserError(f"{prompts}: {error}; for prompts of the real world give --images") from None
    for row, image in zip(rows, images, strict=True):
        yield Captioned(row["id"], row["text"], _tensor(image))


def _photos(params: Params, images: Path, captions: Path, count: int) -> Iterator[Captioned]:
    if not images.is_dir():
        raise UserError(f"{images}: no such folder; expected the images that {captions} lists")
    pairs = _drawn(captions_by_file(captions, params.seed).pairs, params.seed, count)
    tally = Tally()
    for photo in tally.wanted(read_photos(images, pairs, params.resolution)):
        yield Captioned(photo.name, photo.caption, photo.image)
    if tally.skipped:
        say(f"{images}: left out {sum(tally.skipped.values())} of {len(pairs)} images: {dict(tally.skipped)}")


def _samples(folder: Path, seed: int, count: int) -> Iterator[Captioned]:
    for entry in _drawn(read_table(folder / "index.parquet", IMAGE_INDEX), seed, count):
        yield Captioned(entry["path"], entry["text"], _tensor(read_rgb(folder / entry["path"])))


def _drawn(rows: Sequence[T], seed: int, count: int) -> Sequence[T]:
    return python_random(seed, "sensitivity").sample(rows, count) if 0 < count < len(rows) else rows


def _tensor(rgb: np.ndarray) -> Tensor:
    return torch.from_numpy(rgb.copy()).permute(2, 0, 1).float() / 255
