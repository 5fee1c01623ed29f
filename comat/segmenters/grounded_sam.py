"""Grounded-SAM (Ren et al. 2024), the paper's segmenter: Grounding DINO finds boxes, Segment Anything fills them.

The nouns of an image are asked for in one caption, "dog . ball .", as Grounding DINO was trained and as Grounded-SAM
uses it, not one by one: a box goes to the noun that it fits best. Asked for a cat alone, a detector may offer the dog
that was drawn instead, and the mask of a missing object must be empty (Sec. 4.2). The words of one noun do not see
those of another: Grounding DINO masks its text attention at the full stops.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor
from torchvision.ops import box_convert, nms
from transformers import PreTrainedTokenizerBase


class Detector(Protocol):
    tokenizer: PreTrainedTokenizerBase

    def __call__(self, images: Tensor, captions: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Look for the words of a caption in each of the (B, 3, H, W) images in [0, 1].

        Returns: the probability of each of Q boxes for each of L tokens (B, Q, L), 0 where a caption has no such token,
        and the boxes (B, Q, 4): centre and size, relative to the image.
        """


class Masker(Protocol):
    def __call__(self, images: Tensor, boxes: Sequence[Tensor]) -> list[Tensor]:
        """Fill, in each of the (B, 3, H, W) images in [0, 1], its boxes, (n, 4) corners in px: (n, H, W) bool."""


@dataclass(frozen=True)
class Thresholds:
    """Which boxes count."""

    box: float
    """The highest probability of a box, over all tokens, exceeds this."""
    text: float
    """So does the mean probability over the tokens of the box's noun exceed this."""
    nms: float
    """Of boxes whose intersection over union exceeds this, whatever their nouns, the most probable one stays."""


def caption_of(nouns: Sequence[str]) -> tuple[str, list[tuple[int, int]]]:
    """The caption "dog . ball ." and where each noun stands in it: characters [start, end).

    Lower case, as both models were trained. Full stops and question marks inside a noun would split it: they go.
    """
    caption, spans = "", []
    for noun in nouns:
        words = " ".join(noun.lower().replace(".", " ").replace("?", " ").split())
        spans.append((len(caption), len(caption) + len(words)))
        caption += f"{words} . "
    return caption.strip(), spans


def noun_weights(
    tokenizer: PreTrainedTokenizerBase, caption: str, spans: Sequence[tuple[int, int]], tokens: int
) -> Tensor:
    """(nouns, tokens): each row averages over its noun's tokens, as Grounding DINO is evaluated on COCO."""
    offsets = tokenizer(caption, return_offsets_mapping=True).offset_mapping
    weights = torch.zeros(len(spans), tokens)
    for row, (start, end) in enumerate(spans):
        own = [i for i, (a, b) in enumerate(offsets) if start <= a < b <= end]
        weights[row, own] = 1 / max(len(own), 1)
    return weights


def boxes_of_nouns(scores: Tensor, boxes: Tensor, weights: Tensor, limits: Thresholds) -> tuple[Tensor, Tensor]:
    """The boxes of one image that count, and whose they are.

    scores: (Q, L) probabilities. boxes: (Q, 4) centre and size. weights: (nouns, L), see `noun_weights`.
    Returns: corners (n, 4) in the unit of `boxes`, most probable first, and the noun of each (n,).
    """
    best = scores.amax(-1)
    fit, noun = (scores @ weights.T).max(-1)
    keep = (best > limits.box) & (fit > limits.text)
    corners = box_convert(boxes[keep], "cxcywh", "xyxy")
    left = nms(corners, best[keep], limits.nms)
    return corners[left], noun[keep][left]


class GroundedSam:
    """The mask of a noun is the union of its instances' masks; empty where none is found."""

    def __init__(self, detector: Detector, masker: Masker, limits: Thresholds) -> None:
        self.detector, self.masker, self.limits = detector, masker, limits

    def _find(self, images: Tensor, nouns: Sequence[Sequence[str]]) -> list[tuple[Tensor, Tensor]]:
        """For each image its boxes, corners in px, and the noun of each."""
        captions = [caption_of(group) for group in nouns]
        scores, boxes = self.detector(images, [caption for caption, _ in captions])
        height, width = images.shape[-2:]
        found = []
        for row, (caption, spans) in enumerate(captions):
            weights = noun_weights(self.detector.tokenizer, caption, spans, scores.shape[-1]).to(scores)
            corners, owners = boxes_of_nouns(scores[row], boxes[row], weights, self.limits)
            found.append((corners * corners.new_tensor([width, height, width, height]), owners))
        return found

    @torch.no_grad()
    def masks(self, images: Tensor, nouns: Sequence[Sequence[str]]) -> list[Tensor]:
        """For each of the (B, 3, H, W) images in [0, 1] the masks of its nouns: (nouns, H, W) bool."""
        images = images.float().clamp(0, 1)
        masks = [images.new_zeros(len(group), *images.shape[-2:], dtype=torch.bool) for group in nouns]
        asked = [i for i, group in enumerate(nouns) if group]
        if not asked:
            return masks
        found = dict(zip(asked, self._find(images[asked], [nouns[i] for i in asked]), strict=True))
        seen = [i for i in asked if len(found[i][0])]
        for i, instances in zip(seen, self.masker(images[seen], [found[i][0] for i in seen]), strict=True):
            for noun, instance in zip(found[i][1].tolist(), instances, strict=True):
                masks[i][noun] |= instance
        return masks
