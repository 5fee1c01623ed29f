"""Qwen-Image: joint attention with what Qwen2.5-VL says of a prompt, on packed latents of an autoencoder for video."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch.nn.functional as F
from diffusers import QwenImageTransformer2DModel
from torch import Tensor
from transformers import Qwen2_5_VLForConditionalGeneration

from comat.diffusion.attention import Layout, joint_layout
from comat.diffusion.backbones.base import Backbone, PromptEmbeddings
from comat.diffusion.schedulers import Sampler, even_flow

ASKED = (
    "<|im_start|>system\nDescribe the image by detailing the color, shape, size, texture, quantity, text, spatial "
    "relationships of the objects and background:<|im_end|>\n<|im_start|>user\n"
)
"""What the model was trained with before every prompt; the rest of the template is `Text.around`."""


class QwenImage(Backbone):
    """Tokens of a chat behind an instruction that is not read. One token of the image is 2 x 2 latent positions."""

    DENOISER = QwenImageTransformer2DModel
    ENCODERS = (Qwen2_5_VLForConditionalGeneration,)
    TEXT = "joint"
    LORA_TARGETS = (
        *("to_q", "to_k", "to_v", "to_out.0"),
        *("add_q_proj", "add_k_proj", "add_v_proj", "to_add_out"),
    )

    @property
    def patch(self) -> int:
        return 2

    def _encode(self, prompts: Sequence[str]) -> PromptEmbeddings:
        """What the language model says of prompts; no prompt is a space, as the model's authors advise."""
        ids, mask, kept = self._instructed(0, [prompt or " " for prompt in prompts], ASKED, place=0)
        language = self.text_encoders[0].model.language_model
        hidden = language(input_ids=ids, attention_mask=mask).last_hidden_state[:, kept]
        mask = mask[:, kept]
        return PromptEmbeddings(hidden * mask[..., None].to(hidden), mask=mask)

    def sampler(self, name: str, steps: int, latent_size: Sequence[int]) -> Sampler:
        return even_flow(name, self.scheduler_config, steps, latent_size, self.patch)

    def denoise(
        self, z: Tensor, t: Tensor, prompts: PromptEmbeddings, guidance: float = 1.0, *, sampling: bool = False
    ) -> Tensor:
        transformer = self._sampling if sampling else self.denoiser
        size = (z.shape[-2] // 2, z.shape[-1] // 2)
        prediction = transformer(
            hidden_states=F.pixel_unshuffle(z.to(prompts.tokens.dtype), 2).flatten(2).transpose(1, 2),
            encoder_hidden_states=prompts.tokens,
            encoder_hidden_states_mask=prompts.mask,
            timestep=t.expand(len(z)).to(prompts.tokens.dtype) / 1000,
            img_shapes=[[(1, *size)]] * len(z),
            return_dict=False,
        )[0]
        return F.pixel_shuffle(prediction.transpose(1, 2).unflatten(2, size), 2).float()

    def _combined(self, unconditional: Tensor, conditional: Tensor, guidance_scale: float) -> Tensor:
        """Every token as long as the conditional one."""
        combined = super()._combined(unconditional, conditional, guidance_scale)
        asked, found = (F.pixel_unshuffle(one, 2).norm(dim=1, keepdim=True) for one in (conditional, combined))
        return combined * F.interpolate(asked / found, scale_factor=2.0)

    def attention_layers(self) -> list[str]:
        return [f"transformer_blocks.{number}.attn" for number in range(len(self.denoiser.transformer_blocks))]

    def layout(self, latent_size: Sequence[int]) -> Callable[[int, int], Layout]:
        return joint_layout(latent_size, self.patch, text_first=True)
