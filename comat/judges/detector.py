"""Grounding DINO as a judge: where are the instances of each noun?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torchvision.ops import nms

from comat.judges.benchmark import evaluator
from comat.segmenters.grounded_sam_hf import GroundingDinoHF
from comat.segmenters.grounding import Boxes, Thresholds, find_boxes

LIMITS = Thresholds(box=0.35, text=0.25, nms=0.8)
"""groundingdino's own defaults and Grounded-SAM's."""

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

    @torch.no_grad()
    def instances(self, image: np.ndarray, nouns: Sequence[str]) -> list[list[Instance]]:
        """The instances of each of the nouns, at least one noun, in a (H, W, 3) uint8 image; the surest first."""
        pixels = torch.tensor(image, device=self.device).permute(2, 0, 1)[None].float() / 255
        (found,) = find_boxes(self.detector, pixels, [nouns], self.limits)
        return [instances_of(found, noun) for noun in range(len(nouns))]


def instances_of(found: Boxes, noun: int) -> list[Instance]:
    """The instances of one noun, by its number, the surest first."""
    corners, fit = found.corners[found.nouns == noun], found.fit[found.nouns == noun]
    kept = nms(corners, fit, INSTANCE_NMS)
    boxes = zip(corners[kept].tolist(), fit[kept].tolist(), strict=True)
    return [Instance(left, top, right, bottom, score) for (left, top, right, bottom), score in boxes]
