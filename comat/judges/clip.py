"""CLIP (Radford et al. 2021): images and texts as directions that can be compared."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor
from transformers import CLIPModel

from comat.judges.benchmark import evaluator
from comat.models.finite import finite
from comat.models.loading import load_model, load_tokenizer
from comat.models.preprocess import image_processor


class Clip:
    """Embeddings of length 1; a dot product of two is their cosine similarity."""

    def __init__(self, model: str, revision: str | None, device: torch.device) -> None:
        self.id = evaluator(model, revision)
        self.processor = image_processor(model, revision)
        self.tokenizer = load_tokenizer(model, revision)
        self.model = load_model(CLIPModel, model, revision, part="CLIP", dtype=torch.float32, device=device)
        self._texts: dict[str, Tensor] = {}

    @torch.no_grad()
    def images(self, images: Sequence[np.ndarray]) -> Tensor:
        """(H, W, 3) uint8 images → (N, D), on the CPU."""
        pictures = [Image.fromarray(image) for image in images]
        pixels = self.processor(pictures, return_tensors="pt").pixel_values.to(self.model.device)
        found = self.model.get_image_features(pixel_values=pixels).pooler_output
        return F.normalize(finite(found, "CLIP's image encoder", found.dtype), dim=-1).cpu()

    def texts(self, texts: Sequence[str]) -> Tensor:
        """Texts → (N, D), on the CPU; their ends beyond the model's length are not read.

        Each is encoded once, and alone: what it is rounded to depends on no other that happens to be asked with it.
        """
        for text in texts:
            if text not in self._texts:
                self._texts[text] = self._text(text)
        return torch.stack([self._texts[text] for text in texts])

    @torch.no_grad()
    def _text(self, text: str) -> Tensor:
        given = self.tokenizer([text], truncation=True, max_length=self.longest, return_tensors="pt")
        found = self.model.get_text_features(**given.to(self.model.device)).pooler_output
        return F.normalize(finite(found, "CLIP's text encoder", found.dtype), dim=-1)[0].cpu()

    @property
    def scale(self) -> float:
        """By which the model itself multiplies cosines to get its logits."""
        return float(self.model.logit_scale.exp())

    @property
    def longest(self) -> int:
        """Tokens that it reads of a text, with those that open and end it."""
        return self.model.text_model.config.max_position_embeddings

    def cuts(self, text: str) -> bool:
        """Whether a text is longer than it reads."""
        return len(self.tokenizer(text, verbose=False).input_ids) > self.longest
