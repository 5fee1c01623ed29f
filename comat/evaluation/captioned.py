"""Images whose captions are true: renders of the shapes world, photos with captions, or samples of a model."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from operator import itemgetter
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from comat.corpora.pictures.photos import Tally, read_photos
from comat.corpora.pictures.read import pictures_in
from comat.errors import UserError, say
from comat.judges.renders import clean_renders
from comat.randomness import python_random, stratified
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
    prompts: Path, images: Path | None, captions: Path | None, count: int, *, seed: int, resolution: int
) -> Iterator[Captioned]:
    """At most `count` images (0: all), drawn by seed from their categories.

    Without `images` they are clean renders of the held-out prompts of the shapes world; where the folder has an
    `index.parquet` and there are no `captions` the samples that it lists, each with its prompt; otherwise photos in any
    layout of docs/data.md, resized and cropped to `resolution` px.

    Raises:
        UserError: if a file is missing or not what it should be.
    """
    if images is None and captions is not None:
        raise UserError(f"{captions}: captions of which images? Give --images, their folder, or no --captions")
    if images is None:
        return _renders(prompts, count, seed, resolution)
    if captions is None and (images / "index.parquet").is_file():
        return _samples(images, count, seed)
    return _photos(images, captions, count, seed, resolution)


def _renders(prompts: Path, count: int, seed: int, resolution: int) -> Iterator[Captioned]:
    held_out = [row for row in read_table(prompts / "prompts.parquet", PROMPTS) if row["split"] == "test"]
    rows = _drawn(held_out, count, seed, itemgetter("category"))
    try:
        images = list(clean_renders([row["text"] for row in rows], resolution, seed))
    except ValueError as error:
        raise UserError(f"{prompts}: {error}; for prompts of the real world give --images") from None
    for row, image in zip(rows, images, strict=True):
        yield Captioned(row["id"], row["text"], _tensor(image))


def _photos(images: Path, captions: Path | None, count: int, seed: int, resolution: int) -> Iterator[Captioned]:
    pictures = _drawn(pictures_in(images, captions, seed).pictures, count, seed)
    tally = Tally()
    for photo in tally.wanted(read_photos(pictures, resolution)):
        yield Captioned(photo.name, photo.caption, photo.pixels)
    if tally.skipped:
        say(f"{images}: left out {tally.skipped.total()} of {len(pictures)} images: {dict(tally.skipped)}")


def _samples(folder: Path, count: int, seed: int) -> Iterator[Captioned]:
    rows = read_table(folder / "index.parquet", IMAGE_INDEX)
    for entry in _drawn(rows, count, seed, itemgetter("category")):
        yield Captioned(entry["path"], entry["text"], _tensor(read_rgb(folder / entry["path"])))


def _drawn(
    rows: Sequence[T], count: int, seed: int, category: Callable[[T], str] = lambda row: "photos"
) -> Sequence[T]:
    return stratified(rows, count or len(rows), category, python_random(seed, "sensitivity"))


def _tensor(rgb: np.ndarray) -> Tensor:
    return torch.from_numpy(rgb.copy()).permute(2, 0, 1).float() / 255
