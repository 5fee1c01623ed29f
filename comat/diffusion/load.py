"""Choosing the base model of the parameters, with the UNet that the warm-up has made of it."""

from __future__ import annotations

from pathlib import Path

from comat.diffusion.backbone import Backbone
from comat.params import BaseModelParams
from comat.running.device import choose_device

PASSED_THROUGH = "passed_through.json"
"""Stands in the place of a warmed-up UNet where no warm-up was asked for: the base model's own is used, uncopied."""


def warmed_up(unet: Path) -> bool:
    """Whether the warm-up, whose UNet would be the folder `unet`, has ended: with that UNet, or without any."""
    return unet.is_dir() or (unet.parent / PASSED_THROUGH).is_file()


def load_backbone(params: BaseModelParams, unet: Path | None = None) -> Backbone:
    """The base model, with the warmed-up UNet where one is given and there is one; compiled where `params` say so."""
    if unet and not unet.is_dir() and warmed_up(unet):
        unet = None
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
