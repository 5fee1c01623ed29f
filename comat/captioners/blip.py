"""BLIP (Li et al. 2022), the paper's captioner."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from transformers import BlipForConditionalGeneration

from comat.captioners.scoring import encode, pieces, token_log_likelihood
from comat.errors import UserError
from comat.models.loading import load_model, load_tokenizer
from comat.models.preprocess import Preprocess


class Blip:
    """Log-likelihood of lower-cased prompts, after a prefix that is masked out."""

    def __init__(self, model: str, revision: str | None, prefix: str, device: torch.device, dtype: torch.dtype) -> None:
        self.tokenizer = load_tokenizer(model, revision)
        self.model = load_model(BlipForConditionalGeneration, model, revision, part="BLIP", dtype=dtype, device=device)
        self.preprocess = Preprocess(model, revision, self.model.vision_model.config.image_size)
        self.prefix, start = prefix, self.model.text_decoder.config.bos_token_id
        if start is None:
            raise UserError(
                f"captioner_model {model!r}: expected the id of the token that opens a caption, but its "
                "text_config.bos_token_id is null; set it as in BLIP's own config.json, 30522"
            )
        self.start = start

    def log_likelihood(self, images: Tensor, prompts: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Score (B, 3, H, W) images in [0, 1]: log p of each token (B, L) after the first, and which count (B, L)."""
        lines = [self._line(prompt) for prompt in prompts]
        most = self.model.text_decoder.config.max_position_embeddings
        texts = encode(self.tokenizer, lines, len(self.prefix), most, images.device)
        ids = texts.ids.clone()
        ids[:, 0] = self.start
        seen = self.model.vision_model(self.preprocess(images, self.model.dtype))[0]
        logits = self.model.text_decoder(input_ids=ids, attention_mask=texts.mask, encoder_hidden_states=seen).logits
        return token_log_likelihood(logits, texts)

    def pieces(self, prompt: str) -> list[str]:
        """The tokens that count, in order, as text with the space before it; the last is the end, ""."""
        most = self.model.text_decoder.config.max_position_embeddings
        return pieces(self.tokenizer, self._line(prompt), len(self.prefix), most)

    def _line(self, prompt: str) -> str:
        return f"{self.prefix} {prompt}".strip().lower()
