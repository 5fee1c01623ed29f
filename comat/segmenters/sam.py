"""Segment Anything (Kirillov et al. 2023) of the package segment-anything."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from segment_anything.build_sam import _build_sam
from segment_anything.modeling import Sam
from segment_anything.utils.transforms import ResizeLongestSide
from torch import Tensor

from comat.errors import UserError
from comat.models.finite import finite
from comat.segmenters import CHUNK
from comat.segmenters.grounded_sam import BOXES
from comat.segmenters.weights import load_weights, read_weights


def build(weights: dict[str, Tensor]) -> Sam:
    """The model that these weights are of: width, depth and the globally attending blocks are read off them.

    Raises:
        UserError: if they are not weights of Segment Anything.
    """
    blocks = {name: w for name, w in weights.items() if name.endswith("attn.rel_pos_h")}
    if "image_encoder.pos_embed" not in weights or not blocks:
        raise UserError(f"expected weights of Segment Anything, got {len(weights)} others; see grounded_sam.files.sam")
    lengths = [len(blocks[f"image_encoder.blocks.{i}.attn.rel_pos_h"]) for i in range(len(blocks))]
    width = weights["image_encoder.pos_embed"].shape[-1]
    head = blocks["image_encoder.blocks.0.attn.rel_pos_h"].shape[1]
    everywhere = [i for i, length in enumerate(lengths) if length == max(lengths)]
    return _build_sam(width, len(blocks), width // head, everywhere)


class SegmentAnything:
    """A `Masker`: a pixel belongs to the object where its probability exceeds `threshold`.

    The image encoder, nearly all of the work, runs in `dtype`, the rest in float32.
    """

    def __init__(self, model: Sam, threshold: float, device: torch.device, dtype: torch.dtype) -> None:
        self.model, self.dtype = model.requires_grad_(False).eval().to(device), dtype
        self.model.mask_threshold = torch.tensor(threshold).logit().item()
        model.image_encoder.to(dtype)
        model.image_encoder.register_forward_pre_hook(lambda _, inputs: (inputs[0].to(dtype),))
        model.image_encoder.register_forward_hook(lambda _, __, seen: seen.float())
        self.transform = ResizeLongestSide(model.image_encoder.img_size)

    @classmethod
    def load(
        cls, model: str, revision: str | None, file: str, threshold: float, device: torch.device, dtype: torch.dtype
    ) -> SegmentAnything:
        """Weights `file` of a hub id or folder `model`."""
        weights = read_weights(model, file, revision)
        sam = build(weights)
        load_weights(sam, weights, f"Segment Anything {file!r}")
        return cls(sam, threshold, device, dtype)

    def preprocess(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) in [0, 1] → in [0, 255], the longer side at the model's size; it normalises and pads itself."""
        size = self.transform.get_preprocess_shape(*images.shape[-2:], self.transform.target_length)
        return F.interpolate(images, size, mode="bilinear", antialias=True) * 255

    def __call__(self, images: Tensor, boxes: Sequence[Tensor]) -> list[Tensor]:
        size = tuple(images.shape[-2:])
        masks: list[Tensor] = []
        for start in range(0, len(images), CHUNK):
            pixels, corners = self.preprocess(images[start : start + CHUNK]), boxes[start : start + CHUNK]
            seen = self.model.image_encoder(self.model.preprocess(pixels))
            finite(seen, "Segment Anything", self.dtype)  # what is no number would be no mask
            for row, own in enumerate(corners):
                asked = self.transform.apply_boxes_torch(own, size).split(BOXES)
                parts = [self._filled(seen[row : row + 1], part, tuple(pixels.shape[-2:]), size) for part in asked]
                masks.append(torch.cat(parts))
        return masks

    def _filled(self, seen: Tensor, boxes: Tensor, resized: tuple[int, ...], size: tuple[int, ...]) -> Tensor:
        """(n, H, W) bool of boxes (n, 4) in px of the resized image, which was `seen` as (1, C, h, w)."""
        points, dense = self.model.prompt_encoder(points=None, boxes=boxes, masks=None)
        logits, _ = self.model.mask_decoder(
            image_embeddings=seen,
            image_pe=self.model.prompt_encoder.get_dense_pe(),
            sparse_prompt_embeddings=points,
            dense_prompt_embeddings=dense,
            multimask_output=False,
        )
        return self.model.postprocess_masks(logits, resized, size)[:, 0] > self.model.mask_threshold
