"""The autoencoder of latent diffusion models; everywhere else latents are scaled and images are in [0, 1]."""

from __future__ import annotations

import torch
from diffusers import AutoencoderKL
from torch import Tensor

from comat.diffusion.finite import finite
from comat.models.loading import load_model, loaded
from comat.running.device import DTYPES


def load_vae(
    model: str,
    revision: str | None,
    vae: str | None,
    vae_revision: str | None,
    precision: str,
    device: torch.device | str,
) -> AutoencoderKL:
    """The autoencoder of a model alone, or another in its place: a hub id or a folder in hub layout.

    Raises:
        UserError: if it is missing or of another architecture.
    """
    where, folder = ((vae, vae_revision), "") if vae else ((model, revision), "vae")
    found = load_model(AutoencoderKL, *where, part="vae", subfolder=folder, dtype=DTYPES[precision], device=device)

    @torch.no_grad()
    def tried() -> AutoencoderKL:
        # Of a configuration whose parts do not fit each other all weights may be there.
        side = 2 ** len(found.config["block_out_channels"])
        found.decode(encode_images(found, torch.full((1, 3, side, side), 0.5)).to(found.device, found.dtype))
        return found

    return loaded(where[0], "vae (tried on a grey image)", tried)


@torch.no_grad()
def encode_images(vae: AutoencoderKL, images: Tensor) -> Tensor:
    """Images (B, 3, H, W) in [0, 1] to the scaled means of their latents."""
    mean = vae.encode((images * 2 - 1).to(vae.device, vae.dtype)).latent_dist.mean
    latents = (mean.float() - (vae.config["shift_factor"] or 0.0)) * vae.config["scaling_factor"]
    return finite(latents, "the autoencoder's encoder", vae.dtype)


def decode(vae: AutoencoderKL, z: Tensor) -> Tensor:
    """Scaled latents (B, C, h, w) to images (B, 3, H, W), not clamped."""
    scaled = z.to(vae.dtype) / vae.config["scaling_factor"] + (vae.config["shift_factor"] or 0.0)
    return vae.decode(scaled).sample.float() / 2 + 0.5
