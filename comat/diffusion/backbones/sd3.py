"""Stable Diffusion 3 and 3.5: an MMDiT, in which image and text attend to both, trained by flow matching."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from diffusers import SD3Transformer2DModel
from torch import Tensor
from transformers import CLIPTextModelWithProjection, T5EncoderModel

from comat.diffusion.attention import Layout, joint_layout
from comat.diffusion.backbones.base import Backbone, PromptEmbeddings
from comat.diffusion.schedulers import Sampler, dynamic_shift, make_sampler

T5_LENGTH = 256
"""Tokens of the third encoder; without it as many zeros stand there, as in the stock pipeline."""


class StableDiffusion3(Backbone):
    """Two CLIP encoders side by side, their pooled embeddings, and T5's tokens behind them."""

    DENOISER = SD3Transformer2DModel
    ENCODERS = (CLIPTextModelWithProjection, CLIPTextModelWithProjection, T5EncoderModel)
    TEXT = "joint"
    LORA_TARGETS = (
        *("to_q", "to_k", "to_v", "to_out.0"),
        *("add_q_proj", "add_k_proj", "add_v_proj", "to_add_out"),
    )

    @property
    def patch(self) -> int:
        return self.denoiser.config["patch_size"]

    def _encode(self, prompts: Sequence[str]) -> PromptEmbeddings:
        clips = [
            encoder(self._tokenized(number, prompts)[0], output_hidden_states=True)
            for number, encoder in enumerate(self.text_encoders[:2])
        ]
        side_by_side = torch.cat([clip.hidden_states[-2] for clip in clips], -1)
        width = self.denoiser.config["joint_attention_dim"]
        if len(self.texts) == 3:
            behind = self.text_encoders[2](self._tokenized(2, prompts)[0])[0]
        else:
            behind = side_by_side.new_zeros(len(prompts), T5_LENGTH, width)
        first = F.pad(side_by_side, (0, width - side_by_side.shape[-1]))
        return PromptEmbeddings(torch.cat([first, behind], 1), torch.cat([clip.text_embeds for clip in clips], -1))

    def sampler(self, name: str, steps: int, latent_size: Sequence[int]) -> Sampler:
        mu = dynamic_shift(self.scheduler_config, latent_size, self.patch, most=1.16)
        asked = {} if mu is None else {"num_inference_steps": steps, "mu": mu}
        return make_sampler(name, self.scheduler_config, steps, flow=True, **asked)

    def denoise(
        self, z: Tensor, t: Tensor, prompts: PromptEmbeddings, guidance: float = 1.0, *, sampling: bool = False
    ) -> Tensor:
        transformer = self._sampling if sampling else self.denoiser
        return transformer(
            hidden_states=z.to(prompts.tokens.dtype),
            encoder_hidden_states=prompts.tokens,
            pooled_projections=prompts.pooled,
            timestep=t.expand(len(z)),
            return_dict=False,
        )[0].float()

    def attention_layers(self) -> list[str]:
        return [f"transformer_blocks.{number}.attn" for number in range(len(self.denoiser.transformer_blocks))]

    def layout(self, latent_size: Sequence[int]) -> Callable[[int, int], Layout]:
        return joint_layout(latent_size, self.patch, text_first=False)
