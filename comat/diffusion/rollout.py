"""Rollout: sampling without gradients, with the guided predictions of chosen steps kept as autograd leaves.

The denoiser's input is detached at every step (Sec. 4.1, after deep reward supervision), so the final latent depends on
a recorded prediction only through the scheduler's own arithmetic. Autograd runs through that arithmetic alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from comat.diffusion.backbones import Backbone, PromptEmbeddings
from comat.diffusion.schedulers import Sampler


@dataclass
class Rollout:
    """What sampling leaves behind.

    `z0` (B, C, h, w): final latents of `prompts`, with a graph to `leaves`. `leaves[i]`: guided prediction of step i,
    the leaf. `inputs[i]`: what the denoiser saw at step i, as the sampler gives it. `timesteps[i]`: its timestep.
    """

    z0: Tensor
    prompts: PromptEmbeddings
    leaves: dict[int, Tensor] = field(default_factory=dict)
    inputs: dict[int, Tensor] = field(default_factory=dict)
    timesteps: dict[int, Tensor] = field(default_factory=dict)


def rollout(
    backbone: Backbone,
    sampler: Sampler,
    z: Tensor,
    prompts: PromptEmbeddings,
    guidance_scale: float,
    generators: Sequence[torch.Generator],
    *,
    start: int = 0,
    record: Sequence[int] = (),
    chunk: int,
) -> Rollout:
    """Denoise z (B, C, h, w) from step `start` of a fresh `sampler` to the end.

    `generators` hold each sample's own noise for ancestral schedulers; `chunk` samples go through the denoiser at once.
    """
    result = Rollout(z, prompts)
    # One copy to the device for all steps; the scheduler's own arithmetic reads them on the host.
    timesteps = sampler.timesteps.to(z.device)
    sampler.begin(start)
    for index in range(start, len(sampler)):
        with torch.no_grad():
            x = sampler.seen(z.detach(), index)
            prediction = guided_in_chunks(backbone, x, timesteps[index], prompts, guidance_scale, chunk)
        if index in record:
            prediction.requires_grad_()
            result.leaves[index], result.inputs[index], result.timesteps[index] = prediction, x, timesteps[index]
        z = sampler.step(prediction, index, z, generators)
    result.z0 = z
    return result


def guided_in_chunks(
    backbone: Backbone, x: Tensor, t: Tensor, prompts: PromptEmbeddings, guidance_scale: float, chunk: int
) -> Tensor:
    """`Backbone.guided` while sampling, at most `chunk` samples at once."""
    spans = [slice(at, at + chunk) for at in range(0, len(x), chunk)]
    return torch.cat([backbone.guided(x[span], t, prompts[span], guidance_scale, sampling=True) for span in spans])
