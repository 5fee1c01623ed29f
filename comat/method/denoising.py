"""Denoising captioned real images (Eq. 1), with losses on the attention maps of the same pass: TokenCompose's training
(Wang et al. 2023).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from comat.diffusion.attention import recorded_maps
from comat.diffusion.backbones import Backbone, PromptEmbeddings
from comat.method.replay import MapTerm, spans
from comat.randomness import noise


@dataclass(frozen=True)
class Noised:
    """Real images, each at a noise level of its own.

    `z` (B, C, h, w) is what the denoiser sees at timesteps `t` (B,) beside the captions, `target` (B, C, h, w) what it
    should say; `maps` is a loss on the attention maps of that pass, whose steps mean nothing here.
    """

    z: Tensor
    t: Tensor
    target: Tensor
    captions: PromptEmbeddings
    maps: MapTerm | None = None


def noised(
    backbone: Backbone,
    latents: Tensor,
    captions: PromptEmbeddings,
    generators: Sequence[torch.Generator],
    maps: MapTerm | None = None,
) -> Noised:
    """Noise latents (B, C, h, w) as the warm-up does; level and noise of a sample come from its own generator."""
    size = latents.shape[-2:]
    t = torch.cat([backbone.draw_times(1, size, own) for own in generators]).to(latents.device)
    eps = noise(latents.shape[1:], generators).to(latents.device)
    z, target = backbone.training_target(latents, eps, t)
    return Noised(z, t, target, captions, maps)


def denoising_loss(said: Tensor, target: Tensor) -> Tensor:
    """Eq. 1: the mean square of what is wrong with each prediction (B, C, h, w), (B,)."""
    return (said - target).square().flatten(1).mean(1)


def denoise(
    backbone: Backbone, images: Noised, weight: float, *, count: int, chunk: int, loss_scale: float = 1.0
) -> tuple[list[Tensor], list[Tensor]]:
    """Accumulate into the trainable weights the gradient of `weight` times the denoising loss, averaged over `count`
    images, and of the loss on the maps; returns the values of both, one for each chunk, the first without its weight.

    At most `chunk` images go through the denoiser at once; captions are not dropped. With a weight of 0 there is no
    denoising loss.
    """
    losses: list[Tensor] = []
    map_losses: list[Tensor] = []
    maps = images.maps
    for span in spans(len(images.z), chunk):
        loss = images.z.new_zeros(())
        with recorded_maps(backbone.denoiser, maps.layers if maps else ()) as recording:
            said = backbone.denoise(images.z[span], images.t[span], images.captions[span])
            if weight:
                value = denoising_loss(said, images.target[span]).sum() / count
                loss = loss + weight * value
                losses.append(value.detach())
            if maps:
                value = maps.loss(recording.collect(backbone.layout(said.shape[-2:]), len(said)), span)
                loss = loss + value
                map_losses.append(value.detach())
            # Inside, for a checkpointed block runs again as it ran at first: with its recorders.
            if loss.requires_grad:  # of a span without entities the map loss is a constant
                (loss_scale * loss).backward()
    return losses, map_losses
