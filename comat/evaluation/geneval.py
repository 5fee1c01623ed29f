"""GenEval (Ghosh et al. 2023): are the objects there, as many as asked for, in the colours and places asked for?"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from math import hypot
from pathlib import Path

import numpy as np
import torch.nn.functional as F
from torch import Tensor

from comat.judges.benchmark import Drawn, Score
from comat.judges.clip import Clip
from comat.judges.detector import Instance, NounDetector
from comat.samples.formats.geneval import COLOURS, Included, Metadata, read
from comat.storage.images import read_rgb

SLACK = 0.1
"""Offsets count beyond this share of the sum of two objects' sizes."""

TEMPLATES = ("a photo of a {colour} {noun}", "a photo of a {colour}-colored {noun}", "a photo of a {colour} object")


class GenEval:
    """1 for an image that shows everything asked for, else 0. `path`: the file of metadata."""

    name = "geneval"

    def __init__(self, path: Path, detector: NounDetector, clip: Clip) -> None:
        self.metadata = read(path)
        self.detector, self.clip = detector, clip
        self.evaluators = {"detector": detector.id, "clip": clip.id}
        self._palettes: dict[str, Tensor] = {}

    def covers(self, image: Drawn) -> bool:
        return image.source == self.name and image.text in self.metadata

    def scores(self, images: Sequence[Drawn], folder: Path) -> Iterator[Score]:
        """A score for every image, in order; in the details, what is wrong.

        Raises:
            UserError: if an image is missing or unreadable.
        """
        for image in images:
            metadata, pixels = self.metadata[image.text], read_rgb(folder / image.path)
            found = dict(zip(metadata.nouns, self.detector.instances(pixels, metadata.nouns), strict=True))
            colours = [self._colours(pixels, wanted, found[wanted.noun]) for wanted in metadata.include]
            wrong = problems(metadata, found, colours)
            yield Score(float(not wrong), {"wrong": "; ".join(wrong)})

    def _colours(self, image: np.ndarray, wanted: Included, instances: Sequence[Instance]) -> list[str]:
        """The colours of the surest instances, where any is asked for: whose texts are nearest to the crop in CLIP."""
        surest = instances[: wanted.count] if wanted.color else []
        if not surest:
            return []
        crops = self.clip.images([crop(image, instance) for instance in surest])
        return [COLOURS[place] for place in (crops @ self._palette(wanted.noun).T).argmax(-1).tolist()]

    def _palette(self, noun: str) -> Tensor:
        """(colours, D): the mean direction of each colour's texts."""
        if noun not in self._palettes:
            texts = [template.format(colour=colour, noun=noun) for colour in COLOURS for template in TEMPLATES]
            means = self.clip.texts(texts).unflatten(0, (len(COLOURS), len(TEMPLATES))).mean(1)
            self._palettes[noun] = F.normalize(means, dim=-1)
        return self._palettes[noun]


def crop(image: np.ndarray, box: Instance) -> np.ndarray:
    """The pixels of a (H, W, 3) image within a box, at least one each way."""
    left, top = (min(max(int(edge), 0), size - 1) for edge, size in ((box.left, image.shape[1]), (box.top, len(image))))
    return image[top : max(int(box.bottom), top + 1), left : max(int(box.right), left + 1)]


def problems(
    metadata: Metadata, found: Mapping[str, Sequence[Instance]], colours: Sequence[Sequence[str]]
) -> list[str]:
    """What of a prompt's metadata an image does not show; nothing where all is right.

    found: noun → its instances, the surest first. colours: for each entry of `include` those of the surest instances.
    """
    wrong: list[str] = []
    groups: list[Sequence[Instance]] = []
    for wanted, own in zip(metadata.include, colours, strict=True):
        surest = found[wanted.noun][: wanted.count]
        problem = _problem(wanted, surest, own, groups)
        wrong += [problem] if problem else []
        groups.append([] if problem else surest)
    for unwanted in metadata.exclude:
        if len(found[unwanted.noun]) >= unwanted.count:
            wrong.append(f"{len(found[unwanted.noun])} {unwanted.noun}, expected fewer than {unwanted.count}")
    return wrong


def _problem(
    wanted: Included, surest: Sequence[Instance], colours: Sequence[str], groups: Sequence[Sequence[Instance]]
) -> str | None:
    """The first of number, colour and position that is wrong. groups: what the entries before this one found right."""
    if len(surest) < wanted.count:
        return f"{len(surest)} {wanted.noun}, expected {wanted.count}"
    if any(colour != wanted.color for colour in colours):
        return f"{wanted.noun} is {', '.join(colours)}, expected {wanted.color}"
    if wanted.position:
        direction, target = wanted.position
        if not groups[target] or any(direction not in directions(a, b) for a in surest for b in groups[target]):
            return f"{wanted.noun} is not {direction} entry {target}"
    return None


def directions(a: Instance, b: Instance) -> set[str]:
    """Where `a` is as seen from `b`; two directions where it lies diagonally, none where the boxes' centres are close.

    The offset of the centres, less `SLACK` times the sum of the sizes along each axis, must exceed half the distance
    of the centres.
    """
    dx, dy = ((a.left + a.right) - (b.left + b.right)) / 2, ((a.top + a.bottom) - (b.top + b.bottom)) / 2
    wide, high = a.right - a.left + b.right - b.left, a.bottom - a.top + b.bottom - b.top
    half = hypot(dx, dy) / 2
    found = {
        "left of": -dx - SLACK * wide,
        "right of": dx - SLACK * wide,
        "above": -dy - SLACK * high,
        "below": dy - SLACK * high,
    }
    return {name for name, beyond in found.items() if beyond > half}
