"""Segmenters: where in the image is each noun? Open vocabulary, frozen, no gradient."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from torch import Tensor

CHUNK = 4
"""Images that a segmenter encodes at once: ViT-H's global attention takes 1 GB of float32 for each."""


class Segmenter(Protocol):
    left_out: int
    """Instances that have been found but left out of the masks so far, since their noun had too many."""

    def masks(self, images: Tensor, nouns: Sequence[Sequence[str]]) -> list[Tensor]:
        """For each of the (B, 3, H, W) images in [0, 1] the masks of its nouns: (nouns, H, W) bool."""
