"""CLIPSeg (Lüddecke and Ecker 2022)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import CLIPSegForImageSegmentation

from comat.models.finite import finite
from comat.models.loading import load_model, load_tokenizer, loaded
from comat.models.preprocess import image_processor
from comat.segmenters import CHUNK


def decode(
    model: CLIPSegForImageSegmentation, seen: Sequence[Tensor], texts: Tensor, rows: Tensor, size: Sequence[int]
) -> Tensor:
    """Logits (N, *size) of N questions.

    seen: hidden states of the vision encoder for B images, each encoded once. texts: (N, P) text embeddings.
    rows: (N,) the image of each question. The model's own `forward` encodes an image again for every question, and
    never with gradients.
    """
    activations = [seen[i + 1][rows] for i in model.config.extract_layers]
    return model.decoder(activations, texts).logits.reshape(len(rows), *size)


class ClipSeg:
    """A mask is where the probability exceeds `threshold`."""

    left_out = 0  # it knows no instances

    def __init__(
        self, model: str, revision: str | None, threshold: float, device: torch.device, dtype: torch.dtype
    ) -> None:
        self.processor = image_processor(model, revision)
        self.tokenizer = load_tokenizer(model, revision)
        self.model = load_model(
            CLIPSegForImageSegmentation, model, revision, part="CLIPSeg", dtype=dtype, device=device
        )
        self.threshold = threshold
        self._texts: dict[str, Tensor] = {}
        grey = torch.full((1, 3, 64, 64), 0.5, device=device)
        loaded(model, "CLIPSeg (tried on a grey image)", lambda: self.masks(grey, [["thing"]]))

    def _embed(self, noun: str) -> Tensor:
        """(P,) text embedding; each noun is encoded once."""
        if noun not in self._texts:
            encoded = self.tokenizer([noun], truncation=True, return_tensors="pt").to(self.model.device)
            self._texts[noun] = self.model.clip.get_text_features(**encoded).pooler_output[0]
        return self._texts[noun]

    @torch.no_grad()
    def masks(self, images: Tensor, nouns: Sequence[Sequence[str]]) -> list[Tensor]:
        """For each of the (B, 3, H, W) images in [0, 1] the masks of its nouns: (nouns, H, W) bool."""
        parts = (slice(at, at + CHUNK) for at in range(0, len(images), CHUNK))
        return [mask for part in parts for mask in self._masks(images[part], nouns[part])]

    def _masks(self, images: Tensor, nouns: Sequence[Sequence[str]]) -> list[Tensor]:
        counts = [len(group) for group in nouns]
        if not sum(counts):
            return [torch.zeros(0, *images.shape[-2:], dtype=torch.bool, device=images.device) for _ in nouns]
        rows = torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts)).to(images.device)
        texts = torch.stack([self._embed(noun) for group in nouns for noun in group])
        inputs = self.processor(list(images.float().clamp(0, 1)), do_rescale=False, return_tensors="pt")
        pixels = inputs.pixel_values.to(self.model.dtype)
        seen = self.model.clip.vision_model(pixel_values=pixels, output_hidden_states=True).hidden_states
        logits = decode(self.model, seen, texts, rows, pixels.shape[-2:])
        finite(logits, "CLIPSeg", pixels.dtype)  # what is no number would be no mask: an object that is missing
        full = F.interpolate(logits[:, None].float(), images.shape[-2:], mode="bilinear")[:, 0]
        return list((full.sigmoid() > self.threshold).split(counts))
