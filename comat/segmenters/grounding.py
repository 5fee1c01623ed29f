"""Where the nouns of an image are: boxes by Grounding DINO (Liu et al. 2024), whichever package runs it.

The nouns of an image are asked for in one caption, "dog . ball .", as Grounding DINO was trained and as Grounded-SAM
uses it, not one by one: a box goes to the noun that it fits best. Asked for a cat alone, a detector may offer the dog
that was drawn instead, and the mask of a missing object must be empty (Sec. 4.2). The words of one noun do not see
those of another: Grounding DINO masks its text attention at the full stops.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import torch
from torch import Tensor
from torchvision.ops import box_convert, nms
from transformers import PreTrainedTokenizerBase

from comat.models.finite import finite


class Detector(Protocol):
    @property
    def tokenizer(self) -> PreTrainedTokenizerBase: ...

    def __call__(self, images: Tensor, captions: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Look for the words of a caption in each of the (B, 3, H, W) images in [0, 1].

        Returns: the probability of each of Q boxes for each of L tokens (B, Q, L), 0 where a caption has no such token,
        and the boxes (B, Q, 4): centre and size, relative to the image.
        """


@dataclass(frozen=True)
class Thresholds:
    """Which boxes count."""

    box: float
    """The highest probability of a box, over all tokens, exceeds this."""
    text: float
    """So does the mean probability over the tokens of the box's noun exceed this."""
    nms: float
    """Of boxes whose intersection over union exceeds this, whatever their nouns, the most probable one stays."""


@dataclass(frozen=True)
class Boxes:
    """The boxes of one image, most probable first: corners (n, 4), whose each is and how well it fits that noun, (n,).

    The fit is the mean probability over the noun's tokens.
    """

    corners: Tensor
    nouns: Tensor
    fit: Tensor


def surest(boxes: Boxes, most: int) -> Boxes:
    """Of each noun the `most` most probable boxes."""
    rank = (boxes.nouns[:, None] == boxes.nouns).tril(-1).sum(-1)
    keep = rank < most
    return Boxes(boxes.corners[keep], boxes.nouns[keep], boxes.fit[keep])


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


def boxes_of_nouns(scores: Tensor, boxes: Tensor, weights: Tensor, limits: Thresholds) -> Boxes:
    """The boxes of one image that count, corners in the unit of `boxes`.

    scores: (Q, L) probabilities. boxes: (Q, 4) centre and size. weights: (nouns, L), see `noun_weights`.
    """
    best = scores.amax(-1)
    fit, noun = (scores @ weights.T).max(-1)
    keep = (best > limits.box) & (fit > limits.text)
    corners = box_convert(boxes[keep], "cxcywh", "xyxy")
    left = nms(corners, best[keep], limits.nms)
    return Boxes(corners[left], noun[keep][left], fit[keep][left])


def find_boxes(detector: Detector, images: Tensor, nouns: Sequence[Sequence[str]], limits: Thresholds) -> list[Boxes]:
    """For each of the (B, 3, H, W) images in [0, 1] the boxes of its nouns, of which every image has some; in px.

    Raises:
        NotFinite: if what the detector computes is no number.
    """
    captions = [caption_of(group) for group in nouns]
    scores, boxes = detector(images, [caption for caption, _ in captions])
    # What is no number would be no box: an object that is missing.
    scores, boxes = (finite(found, "Grounding DINO", found.dtype) for found in (scores, boxes))
    height, width = images.shape[-2:]
    found = []
    for row, (caption, spans) in enumerate(captions):
        weights = noun_weights(detector.tokenizer, caption, spans, scores.shape[-1]).to(scores)
        own = boxes_of_nouns(scores[row], boxes[row], weights, limits)
        found.append(replace(own, corners=own.corners * own.corners.new_tensor([width, height, width, height])))
    return found
