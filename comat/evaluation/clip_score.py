"""CLIPScore (Hessel et al. 2021): how near an image and its prompt lie in CLIP's space."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from transformers import AutoImageProcessor, AutoTokenizer, CLIPModel

from comat.evaluation.benchmark import Drawn, Score, evaluator
from comat.hub import load_model, loaded
from comat.images import read_rgb


class Clip:
    """A CLIP model with its own processor and tokenizer.

    Raises:
        UserError: if it cannot be had.
    """

    def __init__(self, model: str, revision: str | None, device: torch.device) -> None:
        self.model = load_model(CLIPModel, model, revision, part="CLIP", dtype=torch.float32).to(device)
        self.processor = loaded(
            model, "image processor", lambda: AutoImageProcessor.from_pretrained(model, revision=revision)
        )
        self.tokenizer = loaded(model, "tokenizer", lambda: AutoTokenizer.from_pretrained(model, revision=revision))
        self.device = device

    @torch.no_grad()
    def cosines(self, images: Sequence[np.ndarray], texts: Sequence[str]) -> Tensor:
        """The cosine of each (H, W, 3) uint8 image's and its text's features: (B,). Long texts are cut."""
        pixels = self.processor([Image.fromarray(image) for image in images], return_tensors="pt").to(self.device)
        length = self.model.config.text_config.max_position_embeddings
        words = self.tokenizer(list(texts), padding=True, truncation=True, max_length=length, return_tensors="pt")
        out = self.model(**pixels, **words.to(self.device))
        return (out.image_embeds * out.text_embeds).sum(1).cpu()  # both are of length one


class ClipScore:
    """100 times the cosine, not below 0, as torchmetrics has it (which gives means of batches alone)."""

    def __init__(self, model: str, revision: str | None, device: torch.device, batch_size: int) -> None:
        self.name = "clip_score"
        self.evaluators = {"clip": evaluator(model, revision)}
        self.clip, self.batch_size = Clip(model, revision, device), batch_size

    def covers(self, image: Drawn) -> bool:
        return True

    def scores(self, images: Sequence[Drawn], folder: Path) -> Iterator[Score]:
        for at in range(0, len(images), self.batch_size):
            part = images[at : at + self.batch_size]
            pixels = [read_rgb(folder / image.path) for image in part]
            for cosine in self.clip.cosines(pixels, [image.text for image in part]).tolist():
                yield Score(max(0.0, 100 * cosine))
