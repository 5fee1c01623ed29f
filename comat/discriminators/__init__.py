"""Discriminators: original model or online model? They judge latents."""

from __future__ import annotations

import torch
from torch import nn

from comat.diffusion.backbone import Backbone


def load_discriminator(kind: str, backbone: Backbone, lora_rank: int, generator: torch.Generator) -> nn.Module:
    """Build a discriminator by kind around a diffusion model's UNet."""
    from comat.discriminators.unet import UNetDiscriminator

    return {"unet": UNetDiscriminator}[kind](backbone, lora_rank, generator)
