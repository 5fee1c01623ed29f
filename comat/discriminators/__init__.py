"""Discriminators: original model or online model? They judge latents."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor, nn

from comat.diffusion.backbones import Backbone, Stored, load_base
from comat.errors import UserError
from comat.params import DiscriminatorParams


class Discriminator(Protocol):
    def __call__(self, z: Tensor) -> Tensor:
        """Logits (B, ...) that latents z (B, C, h, w) are real, whatever `discriminator_input` calls real."""

    def trainable_parameters(self) -> list[nn.Parameter]: ...

    def trainable_state(self) -> dict[str, Tensor]: ...

    def load_trainable_state(self, state: dict[str, Tensor]) -> None: ...


def load_discriminator(
    params: DiscriminatorParams,
    backbone: Backbone,
    generator: torch.Generator,
    *,
    lora_rank: int,
    precision: str,
    checkpointed: bool,
    stored: Stored | None = None,
) -> Discriminator:
    """The discriminator that the parameters name, for latents of `backbone`; only its trainable part learns.

    Of a diffusion model that is LoRA of `lora_rank` and a head; `checkpointed`, it runs blocks again in the place of
    keeping activations. `stored`: what its text encoders say, if that was made beforehand.

    Raises:
        UserError: if it cannot be loaded, or reads latents of another depth.
    """
    from comat.discriminators.denoiser import DenoiserDiscriminator
    from comat.discriminators.dino import DinoDiscriminator

    model, revision = params.discriminator_model, params.discriminator_revision
    if params.discriminator == "dino":
        return DinoDiscriminator.load(model, revision, backbone, generator)
    source = load_base(model, revision, vae=backbone.vae, precision=precision, device=backbone.device, stored=stored)
    source.text_encoders.clear()  # of T5 alone 9.5 GB; the empty prompt, all that it is asked, is encoded
    ours, theirs = (model.channels for model in (backbone, source))
    if ours != theirs:
        raise UserError(
            f"discriminator_model {model!r}: expected latents of {ours} channels, its denoiser takes {theirs}"
        )
    if checkpointed:
        source.denoiser.enable_gradient_checkpointing()
    return DenoiserDiscriminator(source, lora_rank, generator)
