"""The pictures of a folder or of tar files, whatever says their captions; one caption each."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from comat.corpora.pictures.coco import coco_listing, is_karpathy, karpathy_listing
from comat.corpora.pictures.folders import METADATA, side_listing, table_listing
from comat.corpora.pictures.listed import Listed, Picture
from comat.corpora.pictures.tars import tar_listing
from comat.corpora.text import normalise
from comat.errors import UserError, clean
from comat.params import CocoPrompts, ImageLatentsParams
from comat.randomness import python_random
from comat.storage.folders import files_below

LAYOUTS = (
    "expected a captions JSON of COCO or Karpathy, a metadata.jsonl, .csv or .parquet, a text file beside each image, "
    "or tar files (docs/data.md)"
)


@dataclass(frozen=True)
class Pictures:
    """The images that have a caption, sorted by name, how many have none, and the layout that they were found in."""

    pictures: list[Picture]
    without: int
    layout: str


def choose(section: ImageLatentsParams | CocoPrompts, seed: int) -> Pictures:
    """The images to take, drawn by seed and in random order; none where the parameters name no folder.

    Raises:
        UserError: as `pictures_in`.
    """
    if section.images is None:
        return Pictures([], 0, "none")
    found = pictures_in(Path(section.images), Path(section.captions) if section.captions else None, seed, section.split)
    pictures = list(found.pictures)
    python_random(seed, "images").shuffle(pictures)
    return Pictures(pictures[: section.count or len(pictures)], found.without, found.layout)


def pictures_in(images: Path, captions: Path | None, seed: int, split: str | None = None) -> Pictures:
    """The images that have a caption; of several captions of an image one is drawn by seed.

    What a layout leaves out is said, and counts among those without a caption.

    Args:
        images: a folder, or a tar file.
        captions: a captions file of COCO's or Karpathy's form, or a table as `metadata.jsonl`; without one the captions
            stand beside the images.
        split: of Karpathy's file.

    Raises:
        UserError: if there is no such folder, the captions are wrong, or no image has any.
    """
    if not images.is_dir() and not (images.is_file() and captions is None):
        raise UserError(f"{images}: no such folder; {LAYOUTS}")
    layout, listed = _listed(images, captions, split)
    found = []
    for one in sorted(listed, key=lambda one: one.name):
        own = [caption for text in one.captions if (caption := normalise(text))]
        if own:
            found.append(Picture(one.name, python_random(seed, "caption", one.name).choice(own), one.place))
    left_out = _left_out(listed)
    if not found:
        why = "".join(f" ({line})" for line in left_out)
        raise UserError(f"{captions or images}: none of {len(listed)} images has a caption{why}; {LAYOUTS}")
    if os.environ.get("RANK", "0") == "0":
        for line in left_out:
            print(f"{images}: {line}", file=sys.stderr)
    return Pictures(found, len(listed) - len(found), layout)


def _left_out(listed: Sequence[Listed]) -> list[str]:
    """A line for each reason that a layout has for leaving images out."""
    lines = []
    for reason in sorted({one.left_out for one in listed if one.left_out}):
        names = sorted(one.name for one in listed if one.left_out == reason)
        lines.append(f"{len(names)} images are left out, {clean(names[0], 80)} first: {reason}")
    return lines


def _listed(images: Path, captions: Path | None, split: str | None) -> tuple[str, list[Listed]]:
    """The layout and what it lists."""
    if captions is not None and not captions.is_file():
        raise UserError(
            f"{captions}: no such file; expected COCO's captions_train2017.json, or another of docs/data.md"
        )
    karpathy = captions is not None and captions.suffix.lower() == ".json" and is_karpathy(captions)
    if split is not None and not karpathy:
        raise UserError(f"{captions or images}: split {split!r}: only captions files of Karpathy's form have one")
    if captions is not None:
        if karpathy:
            return "Karpathy's JSON", karpathy_listing(images, captions, split)
        if captions.suffix.lower() in (".jsonl", ".csv", ".parquet"):
            return "a table", table_listing(images, [captions], beside=False)
        return "COCO's JSON", coco_listing(images, captions)
    if images.is_file():
        return "webdataset", tar_listing(images, [images])
    files = files_below(images, hidden=False)
    if tables := [file for file in files if file.name in METADATA]:
        return "imagefolder", table_listing(images, tables, beside=True)
    if tars := [file for file in files if file.suffix.lower() == ".tar"]:
        return "webdataset", tar_listing(images, tars)
    return "text files beside the images", side_listing(images, files)


def state_of(pictures: Sequence[Picture]) -> list[tuple[str, str, list[int]]]:
    """What differs where names, captions or files do: for the fingerprint of a run that may go on.

    Of a file its size and time of modification, of one that is missing nothing.
    """
    states: dict[Path, list[int]] = {}
    for file in {one.place.file for one in pictures}:
        with contextlib.suppress(OSError):
            states[file] = [file.stat().st_size, file.stat().st_mtime_ns]
    return [(one.name, one.caption, [one.place.at, *states.get(one.place.file, [])]) for one in pictures]
