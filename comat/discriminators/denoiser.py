"""The paper's discriminator: a diffusion model with LoRA and a 1x1 head on its output."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from comat.diffusion.backbones import Backbone
from comat.diffusion.lora import add_lora, lora_state, set_lora_state


class DenoiserDiscriminator(nn.Module):
    """Per-pixel logits, sees the empty prompt at the last timestep. LoRA and head train, nothing else."""

    def __init__(self, backbone: Backbone, lora_rank: int, generator: torch.Generator) -> None:
        super().__init__()
        self._backbone = backbone
        self._lora = add_lora(backbone, lora_rank, generator)
        channels = backbone.channels
        self.head = nn.Conv2d(channels, 1, 1).to(backbone.device)
        with torch.no_grad():
            weight, bias = self.head.parameters()
            weight.copy_(torch.randn(weight.shape, generator=generator) / channels**0.5)
            bias.zero_()

    def forward(self, z: Tensor) -> Tensor:
        """Logits (B, 1, h, w) that latents z (B, C, h, w) are the original model's."""
        return self.head(self._backbone.judged(z))

    def trainable_parameters(self) -> list[nn.Parameter]:
        return [*self._lora, *self.head.parameters()]

    def trainable_state(self) -> dict[str, Tensor]:
        lora = {f"lora.{name}": value for name, value in lora_state(self._backbone.denoiser).items()}
        return lora | {f"head.{name}": value for name, value in self.head.state_dict().items()}

    def load_trainable_state(self, state: dict[str, Tensor]) -> None:
        parts: dict[str, dict[str, Tensor]] = {"lora.": {}, "head.": {}}
        for name, value in state.items():
            parts[name[:5]][name[5:]] = value
        set_lora_state(self._backbone.denoiser, parts["lora."])
        self.head.load_state_dict(parts["head."])
