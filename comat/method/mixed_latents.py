"""Mixed latents (App. A): noisy real images, denoised beside the pure noise, for the captioner's loss only."""

from __future__ import annotations

import torch

from comat.diffusion.schedulers import Sampler


def draw_start(sampler: Sampler, t1: int, t2: int, generator: torch.Generator) -> int:
    """Draw tau ~ U[t1, t2] (training timesteps of a diffusion model); returns the first step that is not above it.

    For a flow-matching model the same tau means the same ratio of signal and noise (`Sampler.start`).
    """
    return sampler.start(int(torch.randint(t1, t2 + 1, (), generator=generator)))
