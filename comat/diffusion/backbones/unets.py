"""Stable Diffusion 1.x, 2.x and XL: UNets with cross-attention."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

import torch
from diffusers import UNet2DConditionModel
from diffusers.utils import convert_state_dict_to_diffusers, convert_unet_state_dict_to_peft
from torch import Tensor
from transformers import CLIPTextModel, CLIPTextModelWithProjection, PreTrainedModel

from comat.diffusion.attention import Layout, cross_layout
from comat.diffusion.backbones.base import Backbone, PromptEmbeddings
from comat.errors import UserError


class StableDiffusion(Backbone):
    """One CLIP encoder, of which the last hidden states are read."""

    DENOISER = UNet2DConditionModel
    ENCODERS: ClassVar[tuple[type[PreTrainedModel], ...]] = (CLIPTextModel,)
    TEXT = "cross"
    LORA_TARGETS = ("to_q", "to_k", "to_v", "to_out.0")

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if self.denoiser.config["addition_embed_type"] == "text_time" and not isinstance(self, StableDiffusionXL):
            raise UserError("its UNet reads pooled embeddings, as SDXL's does: expected a StableDiffusionXLPipeline")

    def _encode(self, prompts: Sequence[str]) -> PromptEmbeddings:
        ids, _ = self._tokenized(0, prompts)
        return PromptEmbeddings(self.text_encoders[0](ids).last_hidden_state)

    def denoise(
        self, z: Tensor, t: Tensor, prompts: PromptEmbeddings, guidance: float = 1.0, *, sampling: bool = False
    ) -> Tensor:
        unet = self._sampling if sampling else self.denoiser
        added = self._conditions(z, prompts)
        return unet(z.to(prompts.tokens.dtype), t, prompts.tokens, added_cond_kwargs=added).sample.float()

    def _conditions(self, z: Tensor, prompts: PromptEmbeddings) -> dict[str, Tensor] | None:
        return None

    def attention_layers(self) -> list[str]:
        names = [name for name, _ in self.denoiser.named_modules() if name.endswith(".attn2")]
        order = ("down_blocks", "mid_block", "up_blocks")
        return [name for part in order for name in names if name.startswith(part)]

    def map_layers(self) -> list[str]:
        """The cross-attention layers of the middle and decoder blocks (App. E)."""
        return [name for name in self.attention_layers() if not name.startswith("down_blocks")]

    def layout(self, latent_size: Sequence[int]) -> Callable[[int, int], Layout]:
        return cross_layout(latent_size)

    def exported_lora(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return super().exported_lora(convert_state_dict_to_diffusers(dict(state)))

    def imported_lora(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return convert_unet_state_dict_to_peft(super().imported_lora(state))


class StableDiffusionXL(StableDiffusion):
    """Two CLIP encoders side by side, pooled embeddings of the second, micro-conditioning on sizes."""

    ENCODERS = (CLIPTextModel, CLIPTextModelWithProjection)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._time_ids: dict[tuple[int, int], Tensor] = {}
        super().__init__(*args, **kwargs)

    def _encode(self, prompts: Sequence[str]) -> PromptEmbeddings:
        hidden, pooled = [], None
        for number, encoder in enumerate(self.text_encoders):
            out = encoder(self._tokenized(number, prompts)[0], output_hidden_states=True)
            hidden.append(out.hidden_states[-2])
            pooled = getattr(out, "text_embeds", None)
        return PromptEmbeddings(torch.cat(hidden, -1), pooled)

    def encode_nothing(self, index: Mapping[str, Any]) -> PromptEmbeddings:
        """Zeros, where the stock pipeline takes them when no negative prompt is given."""
        null = super().encode_nothing(index)
        return null.zeros() if index.get("force_zeros_for_empty_prompt") else null

    def _conditions(self, z: Tensor, prompts: PromptEmbeddings) -> dict[str, Tensor] | None:
        assert prompts.pooled is not None
        return {"text_embeds": prompts.pooled, "time_ids": self._sizes(z, prompts.pooled.dtype).expand(len(z), 6)}

    def _sizes(self, z: Tensor, dtype: torch.dtype) -> Tensor:
        """The micro-conditioning of uncropped latents (B, C, h, w): (6,), in px; one copy a size."""
        height, width = (side * self.vae_scale for side in z.shape[-2:])
        if (height, width) not in self._time_ids:
            sizes = torch.tensor([height, width, 0, 0, height, width], dtype=dtype)
            self._time_ids[height, width] = sizes.to(z.device)
        return self._time_ids[height, width]
