"""GIT (Wang et al. 2022), one transformer over image and text; Table 5 of the paper compares it with BLIP."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from transformers import GitForCausalLM

from comat.captioners.scoring import encode, pieces, token_log_likelihood
from comat.models.loading import load_model, load_tokenizer
from comat.models.preprocess import Preprocess


class Git:
    """Log-likelihood of lower-cased prompts, after a prefix that is masked out."""

    def __init__(self, model: str, revision: str | None, prefix: str, device: torch.device, dtype: torch.dtype) -> None:
        self.tokenizer = load_tokenizer(model, revision)
        self.model = load_model(GitForCausalLM, model, revision, part="GIT", dtype=dtype, device=device)
        self.preprocess = Preprocess(model, revision, self.model.git.image_encoder.config.image_size)
        self.prefix = prefix

    def log_likelihood(self, images: Tensor, prompts: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Score (B, 3, H, W) images in [0, 1]: log p of each token (B, L) after the first, and which count (B, L)."""
        lines = [self._line(prompt) for prompt in prompts]
        most = self.model.config.max_position_embeddings
        texts = encode(self.tokenizer, lines, len(self.prefix), most, images.device)
        pixels = self.preprocess(images, self.model.dtype)
        logits = self.model(
            texts.ids, texts.mask, pixel_values=pixels, use_cache=False, logits_to_keep=texts.ids.shape[1]
        ).logits  # the image's tokens come first
        return token_log_likelihood(logits, texts)

    def pieces(self, prompt: str) -> list[str]:
        """The tokens that count, in order, as text with the space before it; the last is the end, ""."""
        most = self.model.config.max_position_embeddings
        return pieces(self.tokenizer, self._line(prompt), len(self.prefix), most)

    def _line(self, prompt: str) -> str:
        return f"{self.prefix} {prompt}".strip().lower()
