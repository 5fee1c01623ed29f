"""Distances between sets of images: of each model's to clean renders, or to photographs. Lower is better."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image
from torch import Tensor, nn

from comat.corpora.pictures.listed import Picture
from comat.corpora.pictures.photos import Square, Tally, crop, read_photos
from comat.corpora.pictures.read import choose
from comat.errors import UserError, say
from comat.evaluation.featured import Batch, Featured, Pictures, key_of
from comat.evaluation.judging import Judging
from comat.evaluation.remembered import Features as Known
from comat.evaluation.remembered import judge_folder
from comat.evaluation.scores import batches_by_model, sum_of_image
from comat.judges.benchmark import Drawn, evaluator
from comat.judges.frechet import Features, distances_between
from comat.judges.inception import SIDE, Inception, stretch
from comat.judges.later import Later
from comat.judges.oracle import in_world
from comat.judges.renders import clean_renders
from comat.params import CocoPrompts, FidParams, FrechetParams
from comat.running.distributed import ALONE, Processes
from comat.running.stage import say_fewer
from comat.storage.images import read_rgb, to_bytes

DISTANCES = ("frechet", "fid")
"""Lower is better, and no image has one of its own."""
LEFT_OUT = 0.01
"""The share of the photographs that may be missing or unreadable; FID to fewer would be another number."""


@dataclass(frozen=True)
class Found:
    """Model → distance; role → evaluator; `n` images of each model, `n_real` that they are compared with, and how many
    were `left_out` of these."""

    distances: dict[str, float]
    evaluators: dict[str, str]
    counts: dict[str, int]


@dataclass(frozen=True)
class Resized:
    """How an image becomes a square for Inception, and that an array (H, W, 3) from 0 to 255."""

    square: Square
    array: Callable[[Tensor], np.ndarray]

    def read(self, path: Path) -> np.ndarray:
        return self.array(self.square(Image.fromarray(read_rgb(path)), SIDE))


RESIZED = {
    "crop": Resized(partial(crop, resample=Image.Resampling.BICUBIC), to_bytes),
    # Not rounded: pytorch-fid stretches what is read already.
    "stretch": Resized(stretch, lambda pixels: (pixels * 255).permute(1, 2, 0).numpy()),
}
"""By `evaluate.fid.resize`."""


def distances(judging: Judging, images: Sequence[Drawn], processes: Processes = ALONE) -> dict[str, Found]:
    """The distances that are switched on, by name; on the main process alone.

    Raises:
        UserError: if an image is missing or unreadable, too many photographs are, or a set is too small.
    """
    found, on, coco = {}, judging.section, judging.files.coco
    if on.frechet:
        found["frechet"] = _to_clean_renders(on.frechet, judging, images, processes)
    if on.fid:
        assert coco is not None  # `Params` asks for it
        found["fid"] = _to_photographs(on.fid, coco, judging, images, processes)
    return found if processes.main else {}


def _to_clean_renders(own: FrechetParams, judging: Judging, images: Sequence[Drawn], processes: Processes) -> Found:
    """Of the shapes world: to one clean render of the prompt of each image, what a perfect painter would draw."""
    size, name, revision = judging.resolution, own.feature_model, own.feature_revision
    features = Later[nn.Module](evaluator(name, revision), lambda: Features(name, revision, size))
    looks = _featured("frechet", features, judging, processes)
    shown = [image for image in images if in_world(image.text)]
    if not shown:
        raise UserError(
            "evaluate.frechet: expected images of prompts of the embedded shapes world, whose clean renders they are "
            "compared with; there are none: set it to null"
        )
    first = shown[0].model
    texts = [image.text for image in shown if image.model == first]
    real, _ = looks.of(_renders(texts, size, judging), "clean renders")
    return _distances(looks, real, _drawn(shown, judging, read_rgb, "whole", processes), judging, "feature")


def _to_photographs(
    own: FidParams, coco: CocoPrompts, judging: Judging, images: Sequence[Drawn], processes: Processes
) -> Found:
    """FID: of one image of each caption to the photographs that the captions are of."""
    name, revision, file = own.inception_model, own.inception_revision, own.inception_file
    id = evaluator(name, revision) + ("" if own.resize == "stretch" else ", of the middle square of every photograph")
    features = Later[nn.Module](id, lambda: Inception(name, revision, file))
    looks = _featured("fid", features, judging, processes)
    pictures, size = choose(coco, judging.seed).pictures, judging.section.batch_size
    if processes.main:
        say_fewer("samples.benchmarks.coco.count", coco.count, len(pictures), "photographs with a caption")
    resized = RESIZED[own.resize]
    batches = [_photographs(pictures[at : at + size], resized, processes) for at in range(0, len(pictures), size)]
    real, left_out = looks.of(batches, "photographs")
    if left_out:
        why = f"{coco.images}: FID leaves out {left_out.total()} of {len(pictures)} photographs: {dict(left_out)}"
        if left_out.total() > LEFT_OUT * len(pictures):
            raise UserError(f"{why}; expected at most {LEFT_OUT:.0%}: complete the folder")
        say(why)
    shown = [image for image in images if image.source == "coco" and image.seed == 0]
    if not shown:
        raise UserError("evaluate.fid: expected images of the captions of samples.benchmarks.coco, found none of them")
    return _distances(
        looks, real, _drawn(shown, judging, resized.read, "square", processes), judging, "inception", left_out.total()
    )


def _featured(name: str, features: Later[nn.Module], judging: Judging, processes: Processes) -> Featured:
    known = Known(judge_folder(name, judging.judge(name, {"feature": features.id}))) if processes.main else None
    return Featured(features, known, judging.device, processes)


def _distances(
    looks: Featured,
    real: Sequence[Tensor],
    drawn: dict[str, list[Batch]],
    judging: Judging,
    role: str,
    left_out: int = 0,
) -> Found:
    """Of each model's images, batch by batch, to the real ones."""
    sets = {model: looks.of(batches, f"images of {model}")[0] for model, batches in drawn.items()}
    found = distances_between(real, sets, judging.device) if looks.processes.main else {}
    counts = {"n": min(map(_size, sets.values())), "n_real": _size(real), "left_out": left_out}
    return Found(found, {role: looks.features.id}, counts)


def _size(batches: Sequence[Tensor]) -> int:
    return sum(map(len, batches))


def _drawn(
    images: Sequence[Drawn], judging: Judging, read: Callable[[Path], np.ndarray], how: str, processes: Processes
) -> dict[str, list[Batch]]:
    """Model → batches of its images, read as `how` says."""
    found: dict[str, list[Batch]] = {}
    for part in batches_by_model(images, judging.section.batch_size):
        paths = [Path(image.path) for image in part]
        key = key_of(how, *map(sum_of_image, paths)) if processes.main else ""
        batch = Batch(key, partial(_shown, paths, read))
        found.setdefault(part[0].model, []).append(batch)
    return found


def _shown(paths: Sequence[Path], read: Callable[[Path], np.ndarray]) -> Pictures:
    return Pictures([read(path) for path in paths], {})


def _renders(texts: Sequence[str], size: int, judging: Judging) -> list[Batch]:
    """They are drawn one after the other, from one source of randomness, where any of them is asked for."""
    shown, count = enumerate(clean_renders(texts, size, judging.seed)), judging.section.batch_size

    def batch(at: int) -> Batch:
        wanted = range(at, min(at + count, len(texts)))
        key = key_of("renders", judging.seed, size, wanted, *texts)
        return Batch(key, lambda: Pictures(_up_to(wanted, shown), {}))

    return [batch(at) for at in range(0, len(texts), count)]


def _up_to(wanted: range, shown: Iterator[tuple[int, np.ndarray]]) -> list[np.ndarray]:
    """The wanted ones of numbered images; what comes before them is passed over, nothing behind them is taken."""
    found: list[np.ndarray] = []
    while len(found) < len(wanted):
        number, image = next(shown)
        found += [image] if number in wanted else []
    return found


def _photographs(pictures: Sequence[Picture], resized: Resized, processes: Processes) -> Batch:
    def read() -> Pictures:
        tally = Tally()
        photos = tally.wanted(read_photos(pictures, SIDE, square=resized.square))
        return Pictures([resized.array(photo.pixels) for photo in photos], dict(tally.skipped))

    return Batch(key_of("photographs", *map(_sum_of_photograph, pictures)) if processes.main else "", read)


def _sum_of_photograph(picture: Picture) -> str:
    try:
        with picture.place.open() as file:
            return hashlib.sha256(file.read()).hexdigest()
    except OSError:
        return "none"
