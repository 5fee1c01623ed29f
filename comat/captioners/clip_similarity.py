"""CLIP's similarity of image and prompt as a reward (Radford et al. 2021); PickScore is such a CLIP, tuned to votes."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from transformers import CLIPModel, CLIPTextConfig, CLIPVisionConfig

from comat.models.loading import load_model, load_tokenizer
from comat.models.preprocess import Preprocess


class ClipSimilarity:
    """Cosine times the model's own scale, its logit: one number a prompt, no log-likelihood."""

    def __init__(self, model: str, revision: str | None, device: torch.device, dtype: torch.dtype) -> None:
        self.tokenizer = load_tokenizer(model, revision)
        self.model = load_model(CLIPModel, model, revision, part="CLIP", dtype=dtype, device=device)
        vision, text = self.model.config.vision_config, self.model.config.text_config
        assert isinstance(vision, CLIPVisionConfig) and isinstance(text, CLIPTextConfig)
        assert vision.image_size is not None
        self.most, self.preprocess = text.max_position_embeddings, Preprocess(model, revision, vision.image_size)

    def log_likelihood(self, images: Tensor, prompts: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Score (B, 3, H, W) images in [0, 1]: the logit of each prompt (B, 1), which counts (B, 1) bool."""
        cut = {"padding": True, "padding_side": "right", "truncation": True, "max_length": self.most}
        coded = self.tokenizer(list(prompts), **cut, return_tensors="pt").to(images.device)
        seen = self.model.get_image_features(pixel_values=self.preprocess(images, self.model.dtype)).pooler_output
        read = self.model.get_text_features(coded.input_ids, coded.attention_mask).pooler_output
        cosine = torch.cosine_similarity(seen.float(), read.float(), dim=-1)
        logits = (cosine * self.model.logit_scale.float().exp())[:, None]
        return logits, torch.ones_like(logits, dtype=torch.bool)

    def pieces(self, prompt: str) -> list[str]:
        """The prompt as a whole."""
        return [prompt]
