"""PixArt-alpha and PixArt-Sigma: transformers with cross-attention to T5's tokens, on a schedule of betas."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from diffusers import PixArtTransformer2DModel
from torch import Tensor
from transformers import T5EncoderModel

from comat.diffusion.attention import Layout, cross_layout
from comat.diffusion.backbones.base import Backbone, PromptEmbeddings


class PixArtSigma(Backbone):
    """T5's tokens in lower case; its padding is not read."""

    DENOISER = PixArtTransformer2DModel
    ENCODERS = (T5EncoderModel,)
    TEXT = "projected"
    LORA_TARGETS = ("to_q", "to_k", "to_v", "to_out.0")

    @property
    def patch(self) -> int:
        return self.denoiser.config["patch_size"]

    def _encode(self, prompts: Sequence[str]) -> PromptEmbeddings:
        ids, mask = self._tokenized(0, prompts)
        return PromptEmbeddings(self.text_encoders[0](ids, attention_mask=mask)[0], mask=mask)

    def denoise(
        self, z: Tensor, t: Tensor, prompts: PromptEmbeddings, guidance: float = 1.0, *, sampling: bool = False
    ) -> Tensor:
        transformer = self._sampling if sampling else self.denoiser
        prediction = transformer(
            z.to(prompts.tokens.dtype),
            encoder_hidden_states=prompts.tokens,
            encoder_attention_mask=prompts.mask,
            timestep=t.expand(len(z)),
            added_cond_kwargs=self._conditions(z, prompts),
            return_dict=False,
        )[0]
        # Some also predict the variance, behind the noise; samplers here do not read it.
        return prediction[:, : z.shape[1]].float()

    def _conditions(self, z: Tensor, prompts: PromptEmbeddings) -> dict[str, Tensor | None]:
        return {"resolution": None, "aspect_ratio": None}

    def attention_layers(self) -> list[str]:
        return [f"transformer_blocks.{number}.attn2" for number in range(len(self.denoiser.transformer_blocks))]

    def layout(self, latent_size: Sequence[int]) -> Callable[[int, int], Layout]:
        return cross_layout(latent_size)


class PixArtAlpha(PixArtSigma):
    """Its larger models are also told the size of the image."""

    def _conditions(self, z: Tensor, prompts: PromptEmbeddings) -> dict[str, Tensor | None]:
        if not self.denoiser.use_additional_conditions:
            return super()._conditions(z, prompts)
        height, width = (side * self.vae_scale for side in z.shape[-2:])
        sizes, ratio = torch.tensor([[height, width]]), torch.tensor([[height / width]])
        return {
            "resolution": sizes.to(prompts.tokens).expand(len(z), 2),
            "aspect_ratio": ratio.to(prompts.tokens).expand(len(z), 1),
        }
