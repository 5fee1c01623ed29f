"""Z-Image: one stream of image and text, which Qwen3 reads as a chat, trained by flow matching."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from diffusers import ZImageTransformer2DModel
from torch import Tensor
from transformers import Qwen3Model

from comat.diffusion.attention import Layout, joint_layout
from comat.diffusion.backbones.base import Backbone, PromptEmbeddings
from comat.diffusion.schedulers import Sampler, even_flow

FILLED = 32
"""The transformer fills image and text up to multiples of as many tokens, each with a token of its own."""


class ZImage(Backbone):
    """Tokens of a chat from the last layer but one, template and all; every prompt as long as it is."""

    DENOISER = ZImageTransformer2DModel
    ENCODERS = (Qwen3Model,)
    TEXT = "joint"
    LORA_TARGETS = ("to_q", "to_k", "to_v", "to_out.0")

    @property
    def patch(self) -> int:
        return self.denoiser.config["all_patch_size"][0]

    def _encode(self, prompts: Sequence[str]) -> PromptEmbeddings:
        ids, mask = self._tokenized(0, prompts)
        read = self.text_encoders[0](input_ids=ids, attention_mask=mask, output_hidden_states=True)
        return PromptEmbeddings(read.hidden_states[-2], mask=mask)

    def sampler(self, name: str, steps: int, latent_size: Sequence[int]) -> Sampler:
        return even_flow(name, self.scheduler_config, steps, latent_size, self.patch)

    def denoise(
        self, z: Tensor, t: Tensor, prompts: PromptEmbeddings, guidance: float = 1.0, *, sampling: bool = False
    ) -> Tensor:
        assert prompts.mask is not None
        transformer = self._sampling if sampling else self.denoiser
        # On the meta device there is nothing to count.
        lengths = [prompts.mask.shape[1]] * len(z) if z.is_meta else prompts.mask.sum(1).tolist()
        predictions = transformer(
            list(z.to(prompts.tokens.dtype)[:, :, None]),
            (1000 - t.expand(len(z))) / 1000,
            [tokens[:length] for tokens, length in zip(prompts.tokens, lengths, strict=True)],
            patch_size=self.patch,
            return_dict=False,
        )[0]
        # It says where the image is, not where the noise is.
        return -torch.stack(predictions)[:, :, 0].float()

    def attention_layers(self) -> list[str]:
        """Those that image and text go through together, behind the few that each has alone."""
        return [f"layers.{number}.attention" for number in range(len(self.denoiser.layers))]

    def layout(self, latent_size: Sequence[int]) -> Callable[[int, int], Layout]:
        """The text's columns are as many as the longest prompt has, filled up."""
        return joint_layout(latent_size, self.patch, text_first=False, multiple=FILLED)
