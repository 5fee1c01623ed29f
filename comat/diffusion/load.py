"""Choosing the base model of the parameters, with the denoiser that the warm-up has made of it."""

from __future__ import annotations

from pathlib import Path

from comat.diffusion.backbones import Backbone, load_base
from comat.diffusion.backbones.autoencoder import vae_without_weights
from comat.diffusion.embeddings import stored_in
from comat.errors import UserError
from comat.models.families import DENOISER_PARTS
from comat.params import BaseModelParams
from comat.running.device import choose_device

PASSED_THROUGH = "passed_through.json"
"""Stands in the place of a denoiser where no warm-up was asked for: the base model's own is used, uncopied."""


def load_backbone(
    params: BaseModelParams, warmup: Path | None = None, embeddings: Path | None = None, *, latents_only: bool = False
) -> Backbone:
    """The base model, with the denoiser in the folder `warmup` where there is one, without its text encoders where the
    folder `embeddings` has what they say; compiled if the parameters say so. Of `latents_only` it neither encodes nor
    decodes images: the weights of its autoencoder are not read.

    Raises:
        UserError: if it cannot be had, or is no denoiser of this base model.
    """
    base, other = (params.base_model, params.base_revision), (params.vae, params.vae_revision)
    backbone = load_base(
        *base,
        denoiser=denoiser_in(warmup) if warmup else None,
        vae=vae_without_weights(*base, *other, params.precision) if latents_only else params.vae,
        vae_revision=params.vae_revision,
        precision=params.precision,
        device=choose_device(params.device),
        stored=stored_in(embeddings) if embeddings else None,
    )
    if params.compile:
        backbone.compile()
    return backbone


def denoiser_in(warmup: Path) -> str | None:
    """The folder of the denoiser that the warm-up wrote, `unet` or `transformer`; None where none was asked for.

    Raises:
        UserError: if the warm-up did not end.
    """
    if (warmup / PASSED_THROUGH).is_file():
        return None
    found = [warmup / part for part in DENOISER_PARTS if (warmup / part).is_dir()]
    if len(found) != 1:
        expected = " or ".join(DENOISER_PARTS)
        raise UserError(f"{warmup}: expected one folder {expected} in it, found {len(found)}; run `dvc repro warmup`")
    return str(found[0])
