"""Grounding DINO and Segment Anything as transformers has them: the same models, from safetensors in hub layout."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from transformers import GroundingDinoForObjectDetection, SamModel

from comat.models.finite import finite
from comat.models.loading import load_model, load_tokenizer
from comat.models.preprocess import image_processor
from comat.segmenters import CHUNK
from comat.segmenters.grounded_sam import BOXES


class GroundingDinoHF:
    """A `Detector`; always in float32, in which its published thresholds were chosen."""

    def __init__(self, model: str, revision: str | None, device: torch.device) -> None:
        self.processor = image_processor(model, revision)
        self.tokenizer = load_tokenizer(model, revision)
        self.model = load_model(
            GroundingDinoForObjectDetection, model, revision, part="Grounding DINO", dtype=torch.float32, device=device
        )

    def __call__(self, images: Tensor, captions: Sequence[str]) -> tuple[Tensor, Tensor]:
        pixels = self.processor(images=list(images), do_rescale=False, return_tensors="pt")
        text = self.tokenizer(list(captions), padding=True, return_tensors="pt").to(images.device)
        seen = self.model(**pixels, **text)
        return seen.logits.sigmoid(), seen.pred_boxes


class SegmentAnythingHF:
    """A `Masker`: a pixel belongs to the object where its probability exceeds `threshold`.

    The image encoder, nearly all of the work, runs in `dtype`, the rest in float32.
    """

    def __init__(
        self, model: str, revision: str | None, threshold: float, device: torch.device, dtype: torch.dtype
    ) -> None:
        self.processor = image_processor(model, revision)
        self.model = load_model(SamModel, model, revision, part="Segment Anything", dtype=torch.float32, device=device)
        encoder: nn.Module = self.model.vision_encoder
        encoder.to(dtype)
        self.threshold, self.dtype = torch.tensor(threshold).logit().item(), dtype

    def __call__(self, images: Tensor, boxes: Sequence[Tensor]) -> list[Tensor]:
        masks: list[Tensor] = []
        for start in range(0, len(images), CHUNK):
            pixels = self.processor(images=list(images[start : start + CHUNK]), do_rescale=False, return_tensors="pt")
            seen = self.model.get_image_embeddings(pixels.pixel_values.to(self.dtype)).float()
            seen = finite(seen, "Segment Anything", self.dtype)  # what is no number would be no mask
            for row, own in enumerate(boxes[start : start + CHUNK]):
                original, resized = (pixels[key][row].tolist() for key in ("original_sizes", "reshaped_input_sizes"))
                scale = own.new_tensor([resized[1] / original[1], resized[0] / original[0]] * 2)
                # Of SamImageProcessor, as every image processor of a SamModel is.
                post_process = self.processor.post_process_masks  # type: ignore[attr-defined]
                parts = []
                for part in (own * scale).split(BOXES):
                    out = self.model(
                        image_embeddings=seen[row : row + 1], input_boxes=part[None], multimask_output=False
                    )
                    (logits,) = post_process(out.pred_masks, [original], [resized], binarize=False)
                    parts.append(logits[:, 0] > self.threshold)
                masks.append(torch.cat(parts))
        return masks
