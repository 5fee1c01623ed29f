"""Mixed latents (App. A): noisy real images, denoised beside the pure noise, for the captioner's loss only."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from comat.diffusion.schedulers import Scheduler


def draw_start(timesteps: Tensor, t1: int, t2: int, generator: torch.Generator) -> int:
    """Draw tau ~ U[t1, t2] (training timesteps); returns the first step of the sampler that is not above it.

    Args:
        timesteps: (T,) the sampler's, descending.
    """
    tau = int(torch.randint(t1, t2 + 1, (), generator=generator))
    below = (timesteps <= tau).nonzero()
    return int(below[0]) if len(below) else len(timesteps) - 1


def noisy_latents(scheduler: Scheduler, latents: Tensor, noise: Tensor, starts: Sequence[int]) -> Tensor:
    """x_tau = AddNoise(x_0, xi, tau), row b at step `starts[b]` of a fresh sampler; latents and noise (B, C, h, w)."""
    return scheduler.add_noise(latents, noise, scheduler.timesteps[list(starts)])
