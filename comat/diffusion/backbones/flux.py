"""FLUX.1: a transformer on packed latents, trained by flow matching, distilled to take its guidance as a number."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from diffusers import FluxTransformer2DModel
from torch import Tensor
from transformers import CLIPTextModel, T5EncoderModel

from comat.diffusion.attention import Layout, joint_layout
from comat.diffusion.backbones.base import Backbone, PromptEmbeddings, second_half
from comat.diffusion.schedulers import Sampler, even_flow
from comat.errors import UserError


class Flux(Backbone):
    """T5's tokens, and CLIP's pooled embeddings. One token of the transformer is a square of 2 x 2 latent positions."""

    DENOISER = FluxTransformer2DModel
    ENCODERS = (CLIPTextModel, T5EncoderModel)
    TEXT = "joint"
    LORA_TARGETS = (
        *("to_q", "to_k", "to_v", "to_out.0"),
        *("add_q_proj", "add_k_proj", "add_v_proj", "to_add_out"),
    )

    @property
    def patch(self) -> int:
        return 2

    def _encode(self, prompts: Sequence[str]) -> PromptEmbeddings:
        pooled = self.text_encoders[0](self._tokenized(0, prompts)[0]).pooler_output
        return PromptEmbeddings(self.text_encoders[1](self._tokenized(1, prompts)[0])[0], pooled)

    def sampler(self, name: str, steps: int, latent_size: Sequence[int]) -> Sampler:
        return even_flow(name, self.scheduler_config, steps, latent_size, self.patch)

    def guided(
        self, z: Tensor, t: Tensor, prompts: PromptEmbeddings, guidance_scale: float, *, sampling: bool = False
    ) -> Tensor:
        """One pass: a model with an embedding of guidance takes its scale as a number, any other takes none.

        Raises:
            UserError: if it takes none and one is asked for.
        """
        if guidance_scale != 1 and not self.denoiser.config["guidance_embeds"]:
            raise UserError(f"guidance_scale is {guidance_scale:g}: this base model takes no guidance: set it to 1.0")
        return self.denoise(z, t, prompts, guidance_scale, sampling=sampling)

    def denoise(
        self, z: Tensor, t: Tensor, prompts: PromptEmbeddings, guidance: float = 1.0, *, sampling: bool = False
    ) -> Tensor:
        transformer = self._sampling if sampling else self.denoiser
        height, width = z.shape[-2] // 2, z.shape[-1] // 2
        rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
        places = torch.stack([torch.zeros_like(rows), rows, columns], -1).flatten(0, 1)
        taken = self.denoiser.config["guidance_embeds"]
        packed = F.pixel_unshuffle(z.to(prompts.tokens.dtype), 2).flatten(2).transpose(1, 2)
        prediction = transformer(
            hidden_states=packed,
            encoder_hidden_states=prompts.tokens,
            pooled_projections=prompts.pooled,
            timestep=t.expand(len(z)).to(prompts.tokens) / 1000,
            guidance=torch.full((len(z),), guidance, device=z.device) if taken else None,
            img_ids=places.to(prompts.tokens),
            txt_ids=prompts.tokens.new_zeros(prompts.tokens.shape[1], 3),
            return_dict=False,
        )[0]
        return F.pixel_shuffle(prediction.transpose(1, 2).unflatten(2, (height, width)), 2).float()

    def attention_layers(self) -> list[str]:
        model = self.denoiser
        double = [f"transformer_blocks.{number}.attn" for number in range(len(model.transformer_blocks))]
        return double + [
            f"single_transformer_blocks.{number}.attn" for number in range(len(model.single_transformer_blocks))
        ]

    def map_layers(self) -> list[str]:
        """The second half of the blocks with weights of their own for the text."""
        return second_half([name for name in self.attention_layers() if name.startswith("transformer_blocks")])

    def layout(self, latent_size: Sequence[int]) -> Callable[[int, int], Layout]:
        return joint_layout(latent_size, self.patch, text_first=True)
