"""Sana: a transformer with linear attention within the image and softmax cross-attention to Gemma's tokens."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence

from diffusers import SanaPipeline, SanaTransformer2DModel
from torch import Tensor
from transformers import Gemma2Model

from comat.diffusion.attention import Layout, cross_layout
from comat.diffusion.backbones.base import Backbone, PromptEmbeddings

ASKED = inspect.signature(SanaPipeline.__call__).parameters["complex_human_instruction"].default
"""Lines that stand before every prompt, the last up to the prompt itself."""


class Sana(Backbone):
    """Gemma's tokens in lower case, behind an instruction of which only the start token is read; padding is not."""

    DENOISER = SanaTransformer2DModel
    ENCODERS = (Gemma2Model,)
    TEXT = "projected"
    LORA_TARGETS = ("to_q", "to_k", "to_v", "to_out.0")

    @property
    def patch(self) -> int:
        return self.denoiser.config["patch_size"]

    def _encode(self, prompts: Sequence[str]) -> PromptEmbeddings:
        """A prompt behind the instruction; the empty one, which guidance leads away from, alone."""
        # The space that ends the instruction is one word with what follows (`Text.lead`).
        asked = "\n".join(ASKED).removesuffix(" ") if any(prompts) else ""
        ids, mask, kept = self._instructed(0, prompts, asked, place=1)
        hidden = self.text_encoders[0](ids, attention_mask=mask)[0]
        return PromptEmbeddings(hidden[:, kept], mask=mask[:, kept])

    def denoise(
        self, z: Tensor, t: Tensor, prompts: PromptEmbeddings, guidance: float = 1.0, *, sampling: bool = False
    ) -> Tensor:
        transformer = self._sampling if sampling else self.denoiser
        prediction = transformer(
            z.to(prompts.tokens.dtype),
            encoder_hidden_states=prompts.tokens,
            encoder_attention_mask=prompts.mask,
            timestep=t.expand(len(z)) * self.denoiser.config["timestep_scale"],
            return_dict=False,
        )[0]
        # Some also predict the variance, behind the flow; samplers here do not read it.
        return prediction[:, : z.shape[1]].float()

    def attention_layers(self) -> list[str]:
        return [f"transformer_blocks.{number}.attn2" for number in range(len(self.denoiser.transformer_blocks))]

    def layout(self, latent_size: Sequence[int]) -> Callable[[int, int], Layout]:
        return cross_layout(latent_size)
