"""Sampling for its own sake: batches of prompts, each image with its own noise."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TypeVar

import torch
from torch import Tensor
from tqdm import tqdm

from comat.diffusion.attention import recorded_maps
from comat.diffusion.backbones import Backbone
from comat.diffusion.rollout import rollout
from comat.diffusion.schedulers import Sampler
from comat.models.finite import finite
from comat.params import SamplingParams
from comat.randomness import generator, noise

T = TypeVar("T")


def begun(
    backbone: Backbone, params: SamplingParams, generators: Sequence[torch.Generator], px: int
) -> tuple[Sampler, Tensor]:
    """A fresh sampler, and what it starts from at `px` pixels: (B, C, h, w), row b of the noise of `generators[b]`."""
    shape = backbone.latent_shape(px)
    sampler = backbone.sampler(params.scheduler, params.sampling_steps, shape[1:])
    return sampler, sampler.first(noise(shape, generators).to(backbone.device))


@torch.no_grad()
def sample_latents(
    backbone: Backbone,
    params: SamplingParams,
    prompts: Sequence[str],
    keys: Sequence[tuple[str, int]],
    purpose: str,
    px: int,
) -> Tensor:
    """Final latents (B, C, h, w) of `prompts` at `px` pixels.

    The noise of a sample comes from (seed, purpose, its key); two models sampled with equal keys get equal noise.
    """
    own = [generator(params.seed, purpose, *key) for key in keys]
    sampler, z = begun(backbone, params, own, px)
    embeddings = backbone.encode_prompts(prompts)
    z0 = rollout(backbone, sampler, z, embeddings, params.guidance_scale, own, chunk=len(prompts)).z0
    return finite(z0, f"the denoiser, drawing latents ({purpose})", backbone.dtype)


@torch.no_grad()
def decoded(backbone: Backbone, z: Tensor) -> Tensor:
    """Images (B, 3, H, W), not clamped, of latents that were drawn to be kept or shown.

    Raises:
        UserError: if they are not finite.
    """
    return finite(backbone.decode(z), "the autoencoder's decoder", backbone.dtype)


def in_batches(rows: Sequence[T], size: int, title: str) -> Iterator[Sequence[T]]:
    """Slices of `rows`, with a progress bar over the rows."""
    with tqdm(total=len(rows), desc=title) as progress:
        for at in range(0, len(rows), size):
            yield rows[at : at + size]
            progress.update(len(rows[at : at + size]))


@torch.no_grad()
def attention_of(
    backbone: Backbone, params: SamplingParams, prompt: str, key: tuple[str, int], purpose: str
) -> tuple[Tensor, Tensor]:
    """The attention of one sample to each column of its text, (L, h, w), and its final latents (1, C, h, w).

    Means over heads, map layers and all sampling steps; maps are brought to the size of the largest.
    """
    own = [generator(params.seed, purpose, *key)]
    sampler, z = begun(backbone, params, own, params.resolution)
    embeddings = backbone.encode_prompts([prompt])
    total, count = torch.zeros(()), 0
    for index in range(len(sampler)):
        x = sampler.seen(z, index)
        with recorded_maps(backbone.denoiser, backbone.map_layers()) as recording:
            prediction = backbone.guided(x, sampler.timesteps[index], embeddings, params.guidance_scale)
        maps = recording.collect(backbone.layout(z.shape[2:]), 1)
        size = max((m.shape[2], m.shape[3]) for m in maps.values())
        for layer in maps.values():
            mean = layer[0].mean(0).permute(2, 0, 1).cpu()
            total = total + torch.nn.functional.interpolate(mean[None], size, mode="bilinear")[0]
            count += 1
        z = sampler.step(prediction, index, z, own)
    return total / count, z
