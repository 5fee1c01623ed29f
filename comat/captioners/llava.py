"""LLaVA 1.5 (Liu et al. 2023), a language model that sees; Table 5 of the paper compares it with BLIP."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from transformers import AutoTokenizer, LlavaForConditionalGeneration

from comat.captioners.scoring import encode, pieces, token_log_likelihood
from comat.models.loading import load_model, loaded
from comat.models.preprocess import Preprocess

TEMPLATE = "USER: {image}\nDescribe the image in one sentence. ASSISTANT: "
"""LLaVA 1.5's own dialogue form. The paper says of its question only that LLaVA captions "when prompted properly"."""
IMAGE = "<image>"


class Llava:
    """Log-likelihood of prompts as the answer of a dialogue; the question, and a prefix of the answer, are masked out.

    A prompt keeps its case: the language model's vocabulary has both.
    """

    def __init__(self, model: str, revision: str | None, prefix: str, device: torch.device, dtype: torch.dtype) -> None:
        self.tokenizer = loaded(
            model, "tokenizer", lambda: AutoTokenizer.from_pretrained(model, revision=revision, trust_remote_code=False)
        )
        self.model = load_model(
            LlavaForConditionalGeneration, model, revision, part="LLaVA", dtype=dtype, device=device
        )
        vision = self.model.model.vision_tower.config
        self.preprocess = Preprocess(model, revision, vision.image_size)
        # One token stands for each patch; "full" keeps the class token as well.
        patches = (vision.image_size // vision.patch_size) ** 2
        patches += self.model.config.vision_feature_select_strategy == "full"
        self.opening = TEMPLATE.format(image=IMAGE * patches) + (f"{prefix} " if prefix else "")

    def log_likelihood(self, images: Tensor, prompts: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Score (B, 3, H, W) images in [0, 1]: log p of the answer's tokens (B, L), and which count (B, L)."""
        lines = [self._line(prompt) for prompt in prompts]
        most = self.model.model.language_model.config.max_position_embeddings
        texts = encode(self.tokenizer, lines, len(self.opening), most, images.device)
        answer = texts.ids.shape[1] - int(texts.counts.int().argmax(1).min())
        pixels = self.preprocess(images, self.model.dtype)
        logits = self.model(
            input_ids=texts.ids,
            attention_mask=texts.mask,
            pixel_values=pixels,
            use_cache=False,
            logits_to_keep=answer + 1,  # a token is predicted one place before it stands
        ).logits
        return token_log_likelihood(logits, texts)

    def pieces(self, prompt: str) -> list[str]:
        """The answer's tokens, in order, as text with the space before it; the last is the end."""
        most = self.model.model.language_model.config.max_position_embeddings
        return pieces(self.tokenizer, self._line(prompt), len(self.opening), most)

    def _line(self, prompt: str) -> str:
        return f"{self.opening}{prompt}{self.tokenizer.eos_token}"
