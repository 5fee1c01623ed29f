"""Distances between sets of images: of each model's to clean renders, or to photographs. Lower is better."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from comat.corpora.pictures.photos import Tally, read_photos
from comat.corpora.pictures.read import choose
from comat.errors import say
from comat.evaluation.judging import Judging
from comat.judges.benchmark import Drawn, evaluator
from comat.judges.frechet import Features, batches, frechet_distances
from comat.judges.inception import SIDE, Inception
from comat.judges.oracle import in_world
from comat.judges.renders import clean_renders
from comat.params import CocoPrompts, FidParams, FrechetParams
from comat.storage.images import read_rgb, read_square, to_bytes

DISTANCES = ("frechet", "fid")
"""Lower is better, and no image has one of its own."""
Found = tuple[dict[str, float], dict[str, str]]
"""Model → distance, and role → evaluator."""


def distances(judging: Judging, images: Sequence[Drawn]) -> dict[str, Found]:
    """The distances that are switched on, by name.

    Raises:
        UserError: if an image is missing or unreadable, or a set is too small.
    """
    found, on, coco = {}, judging.section, judging.files.coco
    if on.frechet:
        found["frechet"] = _to_clean_renders(on.frechet, judging, images)
    if on.fid:
        assert coco is not None  # `Params` asks for it
        found["fid"] = _to_photographs(on.fid, coco, judging, images)
    return found


def _to_clean_renders(own: FrechetParams, judging: Judging, images: Sequence[Drawn]) -> Found:
    """Of the shapes world: to one clean render of the prompt of each image, what a perfect painter would draw."""
    size, batch = judging.resolution, judging.section.batch_size
    sets = _by_model([image for image in images if in_world(image.text)])
    renders = clean_renders([image.text for image in next(iter(sets.values()), [])], size, judging.seed)
    drawn = {model: batches(map(_read, part), batch) for model, part in sets.items()}
    features = Features(own.feature_model, own.feature_revision, size)
    found = frechet_distances(features, batches(renders, batch), drawn, judging.device)
    return found, {"feature": evaluator(own.feature_model, own.feature_revision)}


def _to_photographs(own: FidParams, coco: CocoPrompts, judging: Judging, images: Sequence[Drawn]) -> Found:
    """FID: of one image of each caption to the photographs that the captions are of."""
    batch, tally = judging.section.batch_size, Tally()
    photos = read_photos(choose(coco, judging.seed).pictures, SIDE, resample=Image.Resampling.BICUBIC)
    photographs = (to_bytes(photo.pixels) for photo in tally.wanted(photos))
    sets = _by_model([image for image in images if image.source == "coco" and image.seed == 0])
    drawn = {model: batches(_squares([Path(i.path) for i in part]), batch) for model, part in sets.items()}
    inception = Inception(own.inception_model, own.inception_revision, own.inception_file)
    found = frechet_distances(inception, batches(photographs, batch), drawn, judging.device)
    if tally.skipped:
        say(f"{coco.images}: FID leaves out {tally.skipped.total()} photographs: {dict(tally.skipped)}")
    return found, {"inception": evaluator(own.inception_model, own.inception_revision)}


def _squares(paths: Sequence[Path]) -> Iterator[np.ndarray]:
    return (read_square(path, SIDE) for path in paths)


def _read(image: Drawn) -> np.ndarray:
    return read_rgb(Path(image.path))


def _by_model(images: Sequence[Drawn]) -> dict[str, list[Drawn]]:
    names = dict.fromkeys(image.model for image in images)
    return {name: [image for image in images if image.model == name] for name in names}
