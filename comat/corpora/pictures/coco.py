"""Captions files in COCO's own JSON and in Karpathy's; images lie in a folder beside."""

from __future__ import annotations

from pathlib import Path
from typing import NotRequired

from typing_extensions import TypedDict

from comat.corpora.pictures.listed import Listed, Place
from comat.errors import UserError
from comat.storage.json_files import read_json
from comat.storage.places import inside

RESTVAL = "restval"  # the part of COCO's validation images that Karpathy's split adds to the training ones


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


class Sentence(TypedDict):
    raw: str


class KarpathyImage(TypedDict):
    filename: str
    filepath: NotRequired[str]
    split: NotRequired[str]
    sentences: list[Sentence]


class Karpathy(TypedDict):
    """What is read of a `dataset_coco.json`, or that of another set in the same form."""

    images: list[KarpathyImage]


def is_karpathy(path: Path) -> bool:
    """Whether a JSON file holds the captions within the images."""
    data = path.read_bytes()
    return b'"sentences"' in data and b'"annotations"' not in data


def coco_listing(folder: Path, path: Path) -> list[Listed]:
    """The images that a COCO captions file lists.

    Raises:
        UserError: if it is none, an id stands twice, or a file name leads out of the folder.
    """
    tables = read_json(path, CocoCaptions, "a COCO captions file", "expected captions_train2017.json (docs/data.md)")
    names: dict[int, str] = {}
    for row in tables["images"]:
        if row["id"] in names:
            raise UserError(f"{path}: id {row['id']} stands twice in `images`; which one a caption is of is unknown")
        names[row["id"]] = row["file_name"]
    captions: dict[str, list[str]] = {name: [] for name in names.values()}
    for said in tables["annotations"]:
        if said["image_id"] not in names:
            raise UserError(f"{path}: a caption is of image {said['image_id']}, which `images` does not list")
        captions[names[said["image_id"]]].append(said["caption"])
    return [Listed(name, Place(inside(folder, name, f"{path}")), tuple(own)) for name, own in captions.items()]


def karpathy_listing(folder: Path, path: Path, split: str | None) -> list[Listed]:
    """The images of a split of Karpathy's file, all of them without one; `train` takes in `restval`.

    Raises:
        UserError: if it is no such file, has no such split, an image stands twice, or a name leads out of the folder.
    """
    rows = read_json(path, Karpathy, "a captions file of Karpathy's form", "expected dataset_coco.json (docs/data.md)")
    wanted = {split, RESTVAL} if split == "train" else {split}
    found: dict[str, Listed] = {}
    for row in rows["images"]:
        if split is None or row.get("split") in wanted:
            name = f"{row['filepath']}/{row['filename']}" if row.get("filepath") else row["filename"]
            if name in found:
                raise UserError(f"{path}: image {name!r} stands twice")
            captions = tuple(sentence["raw"] for sentence in row["sentences"])
            found[name] = Listed(name, Place(inside(folder, name, f"{path}")), captions)
    if not found and rows["images"]:
        splits = sorted({row.get("split", "none") for row in rows["images"]})[:9]
        raise UserError(f"{path}: no image of split {split!r}: expected one of {splits}")
    return list(found.values())
