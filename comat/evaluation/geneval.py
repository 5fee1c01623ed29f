"""GenEval (Ghosh et al. 2023): are the objects there, as many as asked for, in the colours and places asked for?"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from math import hypot
from pathlib import Path

import numpy as np
import torch.nn.functional as F
from torch import Tensor

from comat.evaluation.questions import asked
from comat.judges.benchmark import Drawn, Score
from comat.judges.clip import Clip
from comat.judges.detector import Instance, NounDetector
from comat.judges.later import Later
from comat.samples.formats.geneval import COLOURS, Included, Metadata, read

SLACK = 0.1
"""Offsets count beyond this share of the sum of two objects' sizes."""

TEMPLATES = ("a photo of a {colour} {noun}", "a photo of a {colour}-colored {noun}", "a photo of a {colour} object")


class GenEval:
    """1 for an image that shows everything asked for, else 0. `path`: the file of metadata."""

    name = "geneval"

    def __init__(self, path: Path, detector: Later[NounDetector], clip: Later[Clip], batch_size: int) -> None:
        self.metadata, self.batch_size = read(path), batch_size
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
        for groups, pixels in asked(self.metadata, images, folder, self.batch_size):
            boxes = self.detector().instances(pixels, [metadata.nouns for metadata in groups])
            found = [dict(zip(m.nouns, own, strict=True)) for m, own in zip(groups, boxes, strict=True)]
            for metadata, own, colours in zip(groups, found, self._colours(pixels, groups, found), strict=True):
                wrong = problems(metadata, own, colours)
                yield Score(float(not wrong), {"wrong": "; ".join(wrong)})

    def _colours(
        self,
        images: Sequence[np.ndarray],
        groups: Sequence[Metadata],
        found: Sequence[Mapping[str, Sequence[Instance]]],
    ) -> list[list[list[str]]]:
        """For each image and each entry of its `include` the colours of the surest instances, where any is asked for.

        A crop's colour is that whose texts are nearest to it in CLIP.
        """
        colours: list[list[list[str]]] = [[[] for _ in metadata.include] for metadata in groups]
        crops: list[np.ndarray] = []
        whose: list[tuple[list[str], str]] = []
        for image, metadata, own, into in zip(images, groups, found, colours, strict=True):
            for wanted, named in zip(metadata.include, into, strict=True):
                surest = own[wanted.noun][: wanted.count] if wanted.color else []
                crops += [crop(image, instance) for instance in surest]
                whose += [(named, wanted.noun)] * len(surest)
        for at in range(0, len(crops), self.batch_size):
            seen = self.clip().images(crops[at : at + self.batch_size])
            for one, (named, noun) in zip(seen, whose[at : at + self.batch_size], strict=True):
                named.append(COLOURS[int((one @ self._palette(noun).T).argmax())])
        return colours

    def _palette(self, noun: str) -> Tensor:
        """(colours, D): the mean direction of each colour's texts."""
        if noun not in self._palettes:
            texts = [template.format(colour=colour, noun=noun) for colour in COLOURS for template in TEMPLATES]
            means = self.clip().texts(texts).unflatten(0, (len(COLOURS), len(TEMPLATES))).mean(1)
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
