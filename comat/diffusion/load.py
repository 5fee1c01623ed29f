"""Choosing the base model of the parameters, with the UNet that the warm-up has made of it."""

from __future__ import annotations

from pathlib import Path

from comat.diffusion.backbone import Backbone
from comat.params import BaseModelParams
from comat.running.device import choose_device


def load_backbone(params: BaseModelParams, unet: Path | None = None) -> Backbone:
    """The base model, with the warmed-up UNet where one is given; compiled where the parameters say so."""
    backbone = Backbone.load(
        params.base_model,
        params.base_revision,
        unet=str(unet) if unet else None,
        vae=params.vae,
        vae_revision=params.vae_revision,
        precision=params.precision,
        device=choose_device(params.device),
    )
    if params.compile:
        backbone.compile()
    return backbone
