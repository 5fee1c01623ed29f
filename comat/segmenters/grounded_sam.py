"""Grounded-SAM (Ren et al. 2024), the paper's segmenter: Grounding DINO finds boxes, Segment Anything fills them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor

from comat.segmenters import CHUNK
from comat.segmenters.grounding import Detector, Thresholds, find_boxes, surest

BOXES = 16
"""Boxes that a masker fills at once: their memory is bounded so, whatever an image holds (`benchmarks/waste.py`)."""
QUERIES = 900
"""Boxes that Grounding DINO looks for in an image."""


class Masker(Protocol):
    def __call__(self, images: Tensor, boxes: Sequence[Tensor]) -> list[Tensor]:
        """Fill, in each of the (B, 3, H, W) images in [0, 1], its boxes, (n, 4) corners in px: (n, H, W) bool."""


class GroundedSam:
    """The mask of a noun is the union of its instances' masks, of at most `most`; empty where none is found."""

    def __init__(self, detector: Detector, masker: Masker, limits: Thresholds, most: int = QUERIES) -> None:
        self.detector, self.masker, self.limits, self.most = detector, masker, limits, most
        self.left_out = 0

    @torch.no_grad()
    def masks(self, images: Tensor, nouns: Sequence[Sequence[str]]) -> list[Tensor]:
        """For each of the (B, 3, H, W) images in [0, 1] the masks of its nouns: (nouns, H, W) bool."""
        parts = (slice(at, at + CHUNK) for at in range(0, len(images), CHUNK))
        return [mask for part in parts for mask in self._masks(images[part], nouns[part])]

    def _masks(self, images: Tensor, nouns: Sequence[Sequence[str]]) -> list[Tensor]:
        images = images.float().clamp(0, 1)
        masks = [images.new_zeros(len(group), *images.shape[-2:], dtype=torch.bool) for group in nouns]
        asked = [i for i, group in enumerate(nouns) if group]
        if not asked:
            return masks
        boxes = find_boxes(self.detector, images[asked], [nouns[i] for i in asked], self.limits)
        found = {i: surest(own, self.most) for i, own in zip(asked, boxes, strict=True)}
        self.left_out += sum(len(own.nouns) for own in boxes) - sum(len(own.nouns) for own in found.values())
        seen = [i for i in asked if len(found[i].nouns)]
        for i, instances in zip(seen, self.masker(images[seen], [found[i].corners for i in seen]), strict=True):
            for noun, instance in zip(found[i].nouns.tolist(), instances, strict=True):
                masks[i][noun] |= instance
        return masks
