"""BLIP (Li et al. 2022), the paper's captioner."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from transformers import AutoTokenizer, BlipForConditionalGeneration

from comat.captioners.preprocess import Preprocess
from comat.errors import UserError


class Blip:
    """Log-likelihood of lower-cased prompts, after a prefix that is masked out."""

    def __init__(self, model: str, revision: str | None, prefix: str, device: torch.device, dtype: torch.dtype) -> None:
        try:
            self.tokenizer = AutoTokenizer.from_pretrained(model, revision=revision)
            self.model = BlipForConditionalGeneration.from_pretrained(
                model, revision=revision, dtype=dtype, use_safetensors=True
            )
        except (OSError, ValueError) as error:
            raise UserError(f"captioner {model!r}: cannot load BLIP: {str(error).splitlines()[0][:300]}") from None
        self.model.requires_grad_(False).eval().to(device)
        self.preprocess = Preprocess(model, revision, self.model.config.vision_config.image_size)
        self.prefix = prefix
        self._prefix_tokens = len(self.tokenizer(prefix, add_special_tokens=False).input_ids)

    def log_likelihood(self, images: Tensor, prompts: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Score (B, 3, H, W) images in [0, 1]: log p of each token (B, L) after the first, and which count (B, L)."""
        texts = [f"{self.prefix} {prompt}".strip().lower() for prompt in prompts]
        most = self.model.config.text_config.max_position_embeddings
        encoded = self.tokenizer(texts, padding=True, truncation=True, max_length=most, return_tensors="pt")
        ids, mask = encoded.input_ids.to(images.device), encoded.attention_mask.to(images.device)
        ids[:, 0] = self.model.config.text_config.bos_token_id
        seen = self.model.vision_model(self.preprocess(images, self.model.dtype))[0]
        logits = self.model.text_decoder(input_ids=ids, attention_mask=mask, encoder_hidden_states=seen).logits
        scores = logits[:, :-1].float().log_softmax(-1).gather(-1, ids[:, 1:, None]).squeeze(-1)
        counts = mask[:, 1:].bool()
        counts[:, : self._prefix_tokens] = False
        return scores.masked_fill(~counts, 0.0), counts
