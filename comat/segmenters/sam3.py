"""SAM 3 (Carion et al. 2025): from a noun straight to the masks of its instances, by one model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torchvision.ops import nms
from transformers import Sam3Model, Sam3Processor
from transformers.modeling_outputs import BaseModelOutputWithPooling
from transformers.models.sam3.modeling_sam3 import Sam3VisionEncoderOutput

from comat.models.finite import finite
from comat.models.loading import load_model, loaded
from comat.segmenters import CHUNK

TOKENS = 32
"""Of a noun, as the model's own processor has it."""


@dataclass(frozen=True)
class Limits:
    """Which instances count, and which of their pixels."""

    threshold: float
    """The probability of an instance, times that of its noun being there at all, exceeds this."""
    mask_threshold: float
    """The probability of a pixel exceeds this."""
    nms: float
    """Of instances whose boxes overlap by more (intersection over union), whatever their nouns, the likeliest stays."""


class Sam3:
    """The mask of a noun is the union of its instances' masks; empty where none is found.

    An image's features are computed once for all of its nouns, by the encoder in `dtype`; the rest is float32. Every
    noun is a question of its own, so where a dog was drawn for a cat both may find it: of two instances at one place
    the likelier stays, as in Grounded-SAM.
    """

    left_out = 0  # it gives a bounded number of instances itself

    def __init__(
        self, model: str, revision: str | None, limits: Limits, device: torch.device, dtype: torch.dtype
    ) -> None:
        self.processor = loaded(
            model,
            "processor",
            lambda: Sam3Processor.from_pretrained(model, revision=revision or "main", trust_remote_code=False),
        )
        # The published weights are those of the video model, of which this one is a part.
        self.model = load_model(
            Sam3Model, model, revision, part="SAM 3", dtype=torch.float32, device=device, also=("sam3_video",)
        )
        encoder: nn.Module = self.model.vision_encoder
        encoder.to(dtype)
        self.limits, self.dtype = limits, dtype
        self._texts: dict[str, tuple[Tensor, Tensor]] = {}
        grey = torch.full((1, 3, 64, 64), 0.5, device=device)
        loaded(model, "SAM 3 (tried on a grey image)", lambda: self.masks(grey, [["thing"]]))

    @torch.no_grad()
    def masks(self, images: Tensor, nouns: Sequence[Sequence[str]]) -> list[Tensor]:
        """For each of the (B, 3, H, W) images in [0, 1] the masks of its nouns: (nouns, H, W) bool."""
        images = images.float().clamp(0, 1)
        masks = [images.new_zeros(len(group), *images.shape[-2:], dtype=torch.bool) for group in nouns]
        asked = [i for i, group in enumerate(nouns) if group]
        for at in range(0, len(asked), CHUNK):
            rows = asked[at : at + CHUNK]
            seen = self._see(images[rows])
            for place, i in enumerate(rows):
                masks[i] = self._find(seen, place, nouns[i], images.shape[-2:])
        return masks

    def _see(self, images: Tensor) -> Sam3VisionEncoderOutput:
        pixels = self.processor(images=list(images), do_rescale=False, return_tensors="pt").pixel_values
        return self.model.get_vision_features(pixels.to(images.device, self.dtype))

    def _read(self, noun: str) -> tuple[Tensor, Tensor]:
        """(L, D) what the text encoder makes of a noun, and (L,) which of it is no padding; each is read once."""
        if noun not in self._texts:
            # Its processor fills up to as many, but cuts nothing off.
            cut = {"padding": "max_length", "truncation": True, "max_length": TOKENS}
            text = self.processor.tokenizer([noun], **cut, return_tensors="pt").to(self.model.device)
            read = self.model.get_text_features(text.input_ids, text.attention_mask).pooler_output
            self._texts[noun] = read[0], text.attention_mask[0]
        return self._texts[noun]

    def _find(self, seen: Sam3VisionEncoderOutput, place: int, nouns: Sequence[str], size: torch.Size) -> Tensor:
        """(nouns, *size) bool: the masks of the nouns in one of the images of `seen`."""

        def own(levels: Sequence[Tensor]) -> tuple[Tensor, ...]:
            return tuple(level[place].float().expand(len(nouns), *level.shape[1:]) for level in levels)

        texts, read = zip(*(self._read(noun) for noun in nouns), strict=True)
        found = self.model(
            vision_embeds=Sam3VisionEncoderOutput(
                fpn_hidden_states=own(seen.fpn_hidden_states), fpn_position_encoding=own(seen.fpn_position_encoding)
            ),
            text_embeds=BaseModelOutputWithPooling(pooler_output=torch.stack(texts)),
            attention_mask=torch.stack(read),
        )
        for said in (found.pred_logits, found.presence_logits, found.pred_masks):
            finite(said, "SAM 3", self.dtype)  # what is no number would be no mask: an object that is missing
        instances = self.processor.post_process_instance_segmentation(
            found, self.limits.threshold, self.limits.mask_threshold, target_sizes=[tuple(size)] * len(nouns)
        )
        return self._compete(instances, size)

    def _compete(self, instances: Sequence[dict[str, Tensor]], size: torch.Size) -> Tensor:
        """The union of each noun's instances, of which those go that another noun's, or their own, outdo."""
        union = torch.zeros(len(instances), *size, dtype=torch.bool, device=instances[0]["scores"].device)
        found = [(noun, one) for noun, one in enumerate(instances) if len(one["scores"])]
        if not found:  # the masks of none have no size of the image's
            return union
        scores, boxes, masks = (torch.cat([one[key] for _, one in found]) for key in ("scores", "boxes", "masks"))
        nouns = [noun for noun, one in found for _ in one["scores"]]
        for kept in nms(boxes, scores, self.limits.nms).tolist():
            union[nouns[kept]] |= masks[kept].bool()
        return union
