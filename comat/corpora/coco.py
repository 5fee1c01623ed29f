"""Real images with captions in COCO's layout: one caption an image, read ahead in threads; what is odd is counted."""

from __future__ import annotations

import os
from collections import Counter, deque
from collections.abc import Container, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from PIL import ExifTags, Image, ImageOps
from torch import Tensor
from typing_extensions import TypedDict

from comat.errors import UserError
from comat.params import CocoPrompts, ImageLatentsParams
from comat.randomness import python_random
from comat.storage.images import BROKEN
from comat.storage.json_files import read_json

DEEP = ("I", "I;16", "I;16B", "I;16L", "F")  # modes of more than 8 bits, which Pillow would clip to white
READERS = min(4, os.cpu_count() or 1)
AHEAD = 64  # images that wait, decoded, for the model


class CocoImage(TypedDict):
    id: int
    file_name: str


class CocoCaption(TypedDict):
    image_id: int
    caption: str


class CocoCaptions(TypedDict):
    """What is read of a COCO captions file."""

    images: list[CocoImage]
    annotations: list[CocoCaption]


@dataclass(frozen=True)
class Captions:
    """(file name, caption) of the images that have one, sorted by name; and how many images have none."""

    pairs: list[tuple[str, str]]
    without: int


@dataclass(frozen=True)
class Photo:
    """An image (3, size, size) in [0, 1], None where it was not wanted or cannot be read, and what was special."""

    name: str
    caption: str
    image: Tensor | None = None
    converted: tuple[str, ...] = ()
    skipped: str | None = None


@dataclass
class Tally:
    """Counts of the images that went by."""

    stored: int = 0
    skipped: Counter[str] = field(default_factory=Counter)
    converted: Counter[str] = field(default_factory=Counter)

    def wanted(self, photos: Iterable[Photo]) -> Iterator[Photo]:
        """The photos that have an image; all are counted."""
        for photo in photos:
            self.converted.update(photo.converted)
            if photo.skipped:
                self.skipped[photo.skipped] += 1
            else:
                self.stored += 1
            if photo.image is not None:
                yield photo

    def __add__(self, other: Tally) -> Tally:
        skipped, converted = self.skipped + other.skipped, self.converted + other.converted
        return Tally(self.stored + other.stored, skipped, converted)

    def report(self) -> dict:
        skipped, converted = (dict(sorted(counts.items())) for counts in (self.skipped, self.converted))
        return {"stored": self.stored, "skipped": skipped, "converted": converted}


def choose(section: ImageLatentsParams | CocoPrompts, seed: int) -> Captions:
    """The images to take, drawn by seed and in random order; none where the parameters name no folder.

    Raises:
        UserError: if there is no such folder, or the captions are wrong.
    """
    if section.images is None:
        return Captions([], 0)
    captions = captions_by_file(Path(section.captions), seed)
    if not Path(section.images).is_dir():
        raise UserError(f"{section.images}: no such folder; expected COCO's train2017 (docs/data.md)")
    pairs = list(captions.pairs)
    python_random(seed, "images").shuffle(pairs)
    return Captions(pairs[: section.count or len(pairs)], captions.without)


def captions_by_file(path: Path, seed: int) -> Captions:
    """The captions of a COCO captions file; of several captions of an image one is drawn by seed.

    Raises:
        UserError: if the file is missing or not a COCO captions file.
    """
    try:
        tables = read_json(
            path, CocoCaptions, "a COCO captions file", "expected captions_train2017.json (docs/data.md)"
        )
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; expected COCO's captions_train2017.json (docs/data.md)") from None
    names = {row["id"]: row["file_name"] for row in tables["images"]}
    said = [(row["image_id"], " ".join(row["caption"].split())) for row in tables["annotations"]]
    captions: dict[str, list[str]] = {name: [] for name in names.values()}
    for id, caption in said:
        if id not in names:
            raise UserError(f"{path}: a caption is of image {id}, which `images` does not list")
        captions[names[id]] += [caption] if caption else []
    drawn = [(name, python_random(seed, "caption", name).choice(own)) for name, own in sorted(captions.items()) if own]
    return Captions(drawn, len(captions) - len(drawn))


def fit(image: Image.Image, size: int) -> Tensor:
    """Upright, RGB, resized to cover a square of `size` px and cropped to its centre: (3, size, size) in [0, 1]."""
    square = ImageOps.fit(_rgb(ImageOps.exif_transpose(image)), (size, size), Image.Resampling.LANCZOS)
    return torch.from_numpy(np.array(square)).permute(2, 0, 1).float() / 255


def _rgb(image: Image.Image) -> Image.Image:
    """RGB; what is transparent shows white, not the colour that a file happens to hide there."""
    if not image.has_transparency_data:
        return image.convert("RGB")
    layer = image.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer).convert("RGB")


def _special(image: Image.Image, size: int) -> tuple[str, ...]:
    """What has to be done with an image beside resizing and cropping, by its header."""
    found = {
        "greyscale": image.mode in ("1", "L", "LA"),
        "CMYK": image.mode == "CMYK",
        "transparent": image.has_transparency_data,
        "rotated": image.getexif().get(ExifTags.Base.Orientation, 1) != 1,
        "enlarged": min(image.size) < size,
    }
    return tuple(name for name, is_so in found.items() if is_so)


def read_photo(folder: Path, name: str, caption: str, size: int, decode: bool = True) -> Photo:
    """Read an image and `fit` it; without `decode` only its header, for the counts.

    Raises:
        OSError: if the disk or the network fails, or access is denied: the image may be fine.
    """
    try:
        with Image.open(folder / name) as image:
            if image.mode in DEEP:
                return Photo(name, caption, skipped="more than 8 bits")
            special = _special(image, size)
            return Photo(name, caption, fit(image, size) if decode else None, special)
    except FileNotFoundError:
        return Photo(name, caption, skipped="missing")
    except Image.DecompressionBombError:
        return Photo(name, caption, skipped="too large")
    except BROKEN as error:
        if getattr(error, "errno", None) is not None:
            raise
        return Photo(name, caption, skipped="unreadable")


def read_photos(
    folder: Path, pairs: Iterable[tuple[str, str]], size: int, done: Container[str] = ()
) -> Iterator[Photo]:
    """The photos of (file name, caption) in this order, read ahead in threads; those in `done` by their headers."""
    with ThreadPoolExecutor(READERS) as pool:
        waiting = deque()
        for name, caption in pairs:
            waiting.append(pool.submit(read_photo, folder, name, caption, size, name not in done))
            if len(waiting) == AHEAD:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
