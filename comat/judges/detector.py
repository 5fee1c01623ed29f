"""Grounding DINO as a judge: where are the instances of each noun?"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torchvision.ops import nms

from comat.judges.benchmark import evaluator
from comat.judges.pixels import as_pixels
from comat.segmenters.grounded_sam_hf import GroundingDinoHF
from comat.segmenters.grounding import Boxes, Thresholds, find_boxes

LIMITS = Thresholds(box=0.35, text=0.25, nms=0.8)
"""groundingdino's own defaults and Grounded-SAM's."""

CHUNK = 4
"""Images looked at together: at 800 px, to which Grounding DINO enlarges them, more fill a card of 24 GB."""

INSTANCE_NMS = 0.5
"""Two boxes of one noun whose intersection over union exceeds this are one instance: the overlap of COCO's AP50."""


@dataclass(frozen=True)
class Instance:
    """A thing that was found: the corners of its box in px, and the mean probability over the tokens of its noun."""

    left: float
    top: float
    right: float
    bottom: float
    score: float


class NounDetector:
    """Grounding DINO of transformers, asked for all nouns of an image at once: a box goes to the noun it fits best."""

    def __init__(self, model: str, revision: str | None, device: torch.device, limits: Thresholds = LIMITS) -> None:
        self.id = evaluator(model, revision)
        self.detector, self.device, self.limits = GroundingDinoHF(model, revision, device), device, limits

    def instances(self, images: Sequence[np.ndarray], nouns: Sequence[Sequence[str]]) -> list[list[list[Instance]]]:
        """For each of the (H, W, 3) uint8 images the instances of each of its nouns, the surest first.

        An image may have no nouns, and is not looked at then.
        """
        found: list[list[list[Instance]]] = [[] for _ in images]
        by_size: dict[tuple[int, ...], list[int]] = defaultdict(list)
        for place, (image, own) in enumerate(zip(images, nouns, strict=True)):
            if own:
                by_size[image.shape].append(place)
        for places in by_size.values():
            for at in range(0, len(places), CHUNK):
                part = places[at : at + CHUNK]
                boxes = self._boxes([images[place] for place in part], [nouns[place] for place in part])
                for place, seen in zip(part, boxes, strict=True):
                    found[place] = [instances_of(seen, noun) for noun in range(len(nouns[place]))]
        return found

    @torch.no_grad()
    def _boxes(self, images: Sequence[np.ndarray], nouns: Sequence[Sequence[str]]) -> list[Boxes]:
        """Of images of one size."""
        return find_boxes(self.detector, as_pixels(images, self.device), nouns, self.limits)


def instances_of(found: Boxes, noun: int) -> list[Instance]:
    """The instances of one noun, by its number, the surest first."""
    corners, fit = found.corners[found.nouns == noun], found.fit[found.nouns == noun]
    kept = nms(corners, fit, INSTANCE_NMS)
    boxes = zip(corners[kept].tolist(), fit[kept].tolist(), strict=True)
    return [Instance(left, top, right, bottom, score) for (left, top, right, bottom), score in boxes]
