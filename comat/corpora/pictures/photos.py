"""Images as people have them, made square and RGB, read ahead in threads; what is odd is counted."""

from __future__ import annotations

import errno
import io
import sys
from collections import Counter, deque
from collections.abc import Callable, Container, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np
import torch
from PIL import ExifTags, Image, ImageCms, ImageOps
from torch import Tensor

from comat.corpora.pictures.listed import Picture
from comat.errors import UserError
from comat.storage.images import BROKEN, READERS

CLOSED = (errno.EACCES, errno.EPERM, errno.EISDIR, errno.ENOTDIR, errno.ELOOP, errno.ENAMETOOLONG)
"""Of files that cannot be opened, however often one tries; what else the system says is of the disk or the network."""
DEEP = ("I", "I;16", "I;16B", "I;16L", "F")  # modes of more than 8 bits, which Pillow would clip to white
PROFILED = {"1": "L", "L": "L", "LA": "L", "P": "RGB", "PA": "RGB", "RGB": "RGB", "RGBA": "RGB", "CMYK": "CMYK"}
"""Mode → the mode of its colours, which a colour profile is of."""
LOST = 0.5
"""Share of the listed images that may be left out: above it a folder is not unpacked, or a disk not mounted."""
AHEAD = 64  # images that wait, decoded, for the model


@dataclass(frozen=True)
class Photo:
    """An image (3, size, size) in [0, 1], None where it was not wanted or cannot be read, and what was special."""

    name: str
    caption: str
    image: Tensor | None = None
    converted: tuple[str, ...] = ()
    skipped: str | None = None

    @property
    def pixels(self) -> Tensor:
        """The image, where `Tally.wanted` has seen to it that there is one."""
        assert self.image is not None
        return self.image


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


def check_lost(folder: str, listed: int, skipped: Mapping[str, int]) -> None:
    """Say how many of the `listed` images of `folder` were skipped, and why.

    Raises:
        UserError: if that is more than `LOST` of them.
    """
    lost = sum(skipped.values())
    if not lost:
        return
    why = ", ".join(f"{count:,} {reason}" for reason, count in skipped.items())
    found = f"{folder}: {lost:,} of {listed:,} images with a caption are left out ({why})"
    if lost > LOST * listed:
        raise UserError(f"{found}; expected at most {LOST:.0%}: complete the folder, or take them off the captions")
    print(found, file=sys.stderr)


Square = Callable[[Image.Image, int], Tensor]
"""What makes a square of so many px of an RGB image: (3, size, size) in [0, 1]."""


def crop(image: Image.Image, size: int, resample: Image.Resampling = Image.Resampling.LANCZOS) -> Tensor:
    """Resized to cover a square of `size` px and cropped to its centre."""
    square = ImageOps.fit(image, (size, size), resample)
    return torch.from_numpy(np.array(square)).permute(2, 0, 1).float() / 255


def fit(image: Image.Image, size: int, square: Square = crop) -> Tensor:
    """Upright, sRGB, made a square of `size` px: (3, size, size) in [0, 1]."""
    return square(_rgb(ImageOps.exif_transpose(image), _profile(image)), size)


def _rgb(image: Image.Image, profile: ImageCms.ImageCmsTransform | None) -> Image.Image:
    """sRGB; what is transparent shows white, not the colour that a file happens to hide there."""
    if profile is None:
        layer = image.convert("RGBA") if image.has_transparency_data else image.convert("RGB")
    else:
        layer = _applied(profile, image)
        if image.has_transparency_data:
            layer.putalpha(image.convert("RGBA").getchannel("A"))
    if layer.mode == "RGB":
        return layer
    return Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer).convert("RGB")


def _applied(profile: ImageCms.ImageCmsTransform, image: Image.Image) -> Image.Image:
    found = ImageCms.applyTransform(image.convert(PROFILED[image.mode]), profile)
    assert found is not None  # it would be, were it done in place
    return found


def _profile(image: Image.Image) -> ImageCms.ImageCmsTransform | None:
    """From the colour profile that an image carries to sRGB; None where it has none, has sRGB's, or a damaged one."""
    data = image.info.get("icc_profile")
    if not data or image.mode not in PROFILED:
        return None
    try:
        own = ImageCms.ImageCmsProfile(io.BytesIO(data))
        if "srgb" in ImageCms.getProfileDescription(own).lower():
            return None
        return ImageCms.buildTransform(own, ImageCms.createProfile("sRGB"), PROFILED[image.mode], "RGB")
    except (ImageCms.PyCMSError, *BROKEN):
        return None


def _special(image: Image.Image, size: int) -> tuple[str, ...]:
    """What has to be done with an image beside resizing and cropping, by its header."""
    found = {
        "greyscale": image.mode in ("1", "L", "LA"),
        "CMYK": image.mode == "CMYK",
        "transparent": image.has_transparency_data,
        "rotated": image.getexif().get(ExifTags.Base.Orientation, 1) != 1,
        "enlarged": min(image.size) < size,
        "colour profile": _profile(image) is not None,
    }
    return tuple(name for name, is_so in found.items() if is_so)


def read_photo(picture: Picture, size: int, decode: bool = True, square: Square = crop) -> Photo:
    """Read an image and `fit` it; without `decode` only its header, for the counts.

    Raises:
        OSError: if the disk or the network fails: the image may be fine.
    """
    name, caption = picture.name, picture.caption
    try:
        if not picture.place.file.is_file():
            found = "cannot be opened" if picture.place.file.exists() else "missing"  # a folder, a pipe
            return Photo(name, caption, skipped=found)
        with picture.place.open() as file, Image.open(file) as image:
            if image.mode in DEEP:
                return Photo(name, caption, skipped="more than 8 bits")
            special = _special(image, size)
            return Photo(name, caption, fit(image, size, square) if decode else None, special)
    except FileNotFoundError:
        return Photo(name, caption, skipped="missing")
    except Image.DecompressionBombError:
        return Photo(name, caption, skipped="too large")
    except BROKEN as error:
        number = getattr(error, "errno", None)
        if number is not None and number not in CLOSED:
            raise
        return Photo(name, caption, skipped="unreadable" if number is None else "cannot be opened")


def read_photos(
    pictures: Iterable[Picture],
    size: int,
    done: Container[str] = (),
    square: Square = crop,
) -> Iterator[Photo]:
    """The photos of pictures in this order, read ahead in threads; those in `done` by their headers."""
    with ThreadPoolExecutor(READERS) as pool:
        waiting: deque[Future[Photo]] = deque()
        for picture in pictures:
            waiting.append(pool.submit(read_photo, picture, size, picture.name not in done, square))
            if len(waiting) == AHEAD:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
