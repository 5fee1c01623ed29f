"""The autoencoder of latent diffusion models; everywhere else latents are scaled and images are in [0, 1]."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any

import torch
from diffusers import AutoencoderDC, AutoencoderKL, AutoencoderKLQwenImage
from torch import Tensor

from comat.models.finite import finite
from comat.models.loading import load_model, loaded
from comat.running.device import DTYPES


class Coder(ABC):
    """How an autoencoder of diffusers is asked."""

    KIND: Any

    def __init__(self, vae: Any) -> None:
        self.vae = vae

    @property
    def reduction(self) -> int:
        """Pixels of the side of one latent position."""
        return self.vae.spatial_compression_ratio

    @abstractmethod
    def encode(self, pixels: Tensor) -> Tensor:
        """Pixels (B, 3, H, W) in [-1, 1] to the means of their latents, scaled, in float32."""

    @abstractmethod
    def decode(self, z: Tensor) -> Tensor:
        """Scaled latents (B, C, h, w) to pixels in [-1, 1], more or less, not clamped."""


class KL(Coder):
    """Stable Diffusion's, and all that are scaled and shifted by one number each."""

    KIND = AutoencoderKL

    @property
    def reduction(self) -> int:
        return 2 ** (len(self.vae.config["block_out_channels"]) - 1)

    def encode(self, pixels: Tensor) -> Tensor:
        mean = self.vae.encode(pixels).latent_dist.mean
        return (mean.float() - (self.vae.config["shift_factor"] or 0.0)) * self.vae.config["scaling_factor"]

    def decode(self, z: Tensor) -> Tensor:
        scaled = z / self.vae.config["scaling_factor"] + (self.vae.config["shift_factor"] or 0.0)
        return self.vae.decode(scaled).sample


class DC(Coder):
    """The deep compression autoencoder of Sana, which has no distribution of latents."""

    KIND = AutoencoderDC

    def encode(self, pixels: Tensor) -> Tensor:
        return self.vae.encode(pixels).latent.float() * self.vae.config["scaling_factor"]

    def decode(self, z: Tensor) -> Tensor:
        return self.vae.decode(z / self.vae.config["scaling_factor"]).sample


class QwenVideo(Coder):
    """Qwen-Image's, made for video: an image is one frame, every channel of latents has a mean and deviation."""

    KIND = AutoencoderKLQwenImage

    def _statistics(self, like: Tensor) -> tuple[Tensor, Tensor]:
        config = self.vae.config
        mean, deviation = (torch.tensor(config[f"latents_{name}"]).to(like) for name in ("mean", "std"))
        return mean.view(1, -1, 1, 1), deviation.view(1, -1, 1, 1)

    def encode(self, pixels: Tensor) -> Tensor:
        means = self.vae.encode(pixels[:, :, None]).latent_dist.mean[:, :, 0].float()
        mean, deviation = self._statistics(means)
        return (means - mean) / deviation

    def decode(self, z: Tensor) -> Tensor:
        """By its parts: `vae.decode` gives the same, and clamps it, so that a saturated pixel has no gradient."""
        mean, deviation = self._statistics(z)
        return self.vae.decoder(self.vae.post_quant_conv((z * deviation + mean)[:, :, None]))[:, :, 0]


CODERS: dict[str, type[Coder]] = {coder.KIND.__name__: coder for coder in (KL, DC, QwenVideo)}
"""By the class of the autoencoder, as its config.json and the table of families name it."""


def coder(vae: Any) -> Coder:
    return CODERS[type(vae).__name__](vae)


def vae_class(config: Mapping[str, Any]) -> Any:
    """The class of an autoencoder by its configuration; one that is not known is taken for Stable Diffusion's."""
    return CODERS.get(str(config.get("_class_name")), KL).KIND


def load_vae(
    model: str,
    revision: str | None,
    vae: str | None,
    vae_revision: str | None,
    precision: str,
    device: torch.device | str,
) -> Any:
    """The autoencoder of a model alone, or another in its place: a hub id or a folder in hub layout.

    Raises:
        UserError: if it is missing or of another architecture.
    """
    where, folder, config = _place(model, revision, vae, vae_revision)
    found = load_model(vae_class(config), *where, part="vae", subfolder=folder, dtype=DTYPES[precision], device=device)

    @torch.no_grad()
    def tried() -> Any:
        # Of a configuration whose parts do not fit each other all weights may be there.
        side = 2 * coder(found).reduction
        decode(found, encode_images(found, torch.full((1, 3, side, side), 0.5)).to(found.device))
        return found

    return loaded(where[0], "vae (tried on a grey image)", tried)


def vae_without_weights(
    model: str, revision: str | None, vae: str | None = None, vae_revision: str | None = None, precision: str = "fp32"
) -> Any:
    """The autoencoder that `load_vae` would load, on the meta device: what it is made like, for who neither encodes nor
    decodes.

    Raises:
        UserError: if its configuration is missing or that of another architecture.
    """
    where, _, config = _place(model, revision, vae, vae_revision)
    with torch.device("meta"):
        return loaded(where[0], "vae", lambda: vae_class(config).from_config(config).to(DTYPES[precision]))


def _place(
    model: str, revision: str | None, vae: str | None, vae_revision: str | None
) -> tuple[tuple[str, str | None], str, Mapping[str, Any]]:
    """Model and revision, folder in it and configuration of an autoencoder."""
    where, folder = ((vae, vae_revision), "") if vae else ((model, revision), "vae")
    config = loaded(where[0], "vae", lambda: AutoencoderKL.load_config(where[0], revision=where[1], subfolder=folder))
    return where, folder, config


@torch.no_grad()
def encode_images(vae: Any, images: Tensor) -> Tensor:
    """Images (B, 3, H, W) in [0, 1] to the scaled means of their latents."""
    latents = coder(vae).encode((images * 2 - 1).to(vae.device, vae.dtype))
    return finite(latents, "the autoencoder's encoder", vae.dtype)


def decode(vae: Any, z: Tensor) -> Tensor:
    """Scaled latents (B, C, h, w) to images (B, 3, H, W), not clamped."""
    return coder(vae).decode(z.to(vae.dtype)).float() / 2 + 0.5
