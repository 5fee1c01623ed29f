"""Samplers by name, from a model's own noise schedule, behind one interface for diffusion and flow matching."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Mapping, Sequence
from typing import Any

import diffusers
import numpy as np
import torch
from diffusers import DDIMScheduler, DDPMScheduler, EulerDiscreteScheduler, FlowMatchEulerDiscreteScheduler
from torch import Tensor

from comat.errors import UserError
from comat.models.fit import FLOW, SCHEDULE_KEYS, check_sampler, check_steps, not_carried, spacing_of

SCHEDULERS = {"ddpm": DDPMScheduler, "ddim": DDIMScheduler, "euler": EulerDiscreteScheduler}
REFERENCE_BETAS = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
"""Stable Diffusion's schedule, by which a timestep says how noisy a latent is where a model has none of its own."""


class Sampler:
    """One trajectory from noise to an image, over the steps of a scheduler of diffusers.

    `timesteps` (T,), descending, is what the denoiser is told at each step, of 1000.
    """

    def __init__(self, scheduler: Any) -> None:
        self.scheduler = scheduler
        own = scheduler.config
        self.flow = isinstance(scheduler, FlowMatchEulerDiscreteScheduler) or bool(own.get("use_flow_sigmas"))
        self.timesteps: Tensor = scheduler.timesteps
        self._ancestral = "generator" in inspect.signature(scheduler.step).parameters

    def __len__(self) -> int:
        return len(self.timesteps)

    def first(self, noise: Tensor) -> Tensor:
        """Where a trajectory from `noise` (B, C, h, w) of unit variance begins."""
        return noise if self.flow else noise * self.scheduler.init_noise_sigma

    def begun(self, index: int) -> Sampler:
        """A sampler of its own for a trajectory that begins at step `index`."""
        scheduler = copy.deepcopy(self.scheduler)
        if hasattr(scheduler, "set_begin_index"):
            scheduler.set_begin_index(index)
        return Sampler(scheduler)

    def seen(self, z: Tensor, index: int) -> Tensor:
        """What the denoiser sees of z at a step."""
        return z if self.flow else self.scheduler.scale_model_input(z, self.timesteps[index])

    def step(self, prediction: Tensor, index: int, z: Tensor, generators: Sequence[torch.Generator]) -> Tensor:
        """z after step `index`; `generators` hold the own noise of each sample, where the scheduler adds some."""
        noise = {"generator": list(generators)} if self._ancestral else {}
        return self.scheduler.step(prediction, self.timesteps[index], z, **noise).prev_sample

    def start(self, tau: int) -> int:
        """The first step that is not noisier than timestep `tau` in [0, 999] of a diffusion model.

        For flow matching that is the step whose share of noise gives the same ratio of signal and noise.
        """
        top = 1000 * float(flow_level(torch.tensor(tau))) if self.flow else tau
        below = (self.timesteps <= top).nonzero()
        return int(below[0]) if len(below) else len(self.timesteps) - 1

    def noisy(self, latents: Tensor, noise: Tensor, starts: Sequence[int]) -> Tensor:
        """AddNoise(x_0, xi), row b at step `starts[b]`; latents and noise are (B, C, h, w)."""
        if self.flow:
            sigma = self.scheduler.sigmas[list(starts)].to(latents.device).view(-1, 1, 1, 1)
            return (1 - sigma) * latents + sigma * noise
        return self.scheduler.add_noise(latents, noise, self.timesteps[list(starts)])


def flow_level(t: Tensor) -> Tensor:
    """The share of noise s in [0, 1] at which (1 - s) x + s xi has the signal-to-noise ratio of timestep t in [0, 999].

    A diffusion model's latent is sqrt(a) x + sqrt(1 - a) xi with a of `REFERENCE_BETAS`; equal ratios give
    (1 - s) / s = sqrt(a / (1 - a)).
    """
    a = DDPMScheduler(**REFERENCE_BETAS).alphas_cumprod[t]
    return 1 / (1 + (a / (1 - a)).sqrt())


def make_sampler(name: str, config: Mapping[str, Any], steps: int, *, flow: bool = False, **timesteps: Any) -> Sampler:
    """A fresh sampler over `steps` steps of the model's own noise schedule and spacing; latents are never clipped.

    Args:
        name: of `SCHEDULERS`, or "model" for the one that `config` (of scheduler_config.json) names.
        flow: whether the model was trained by flow matching.
        timesteps: for `set_timesteps` of a flow-matching scheduler, in the place of `steps`.

    Raises:
        UserError: if the configuration of the schedule says what no sampler here heeds, the steps do not fit it, or
        the sampler is none for this kind of model.
    """
    where = "scheduler_config.json of the base model"
    for key, expected in not_carried(config, flow):
        raise UserError(f"{where}: {key} is {config.get(key)!s:.60}: expected {expected}")
    check_sampler(name, config, flow)
    if flow:
        kind = getattr(diffusers, str(config.get("_class_name", FLOW)))
        scheduler = kind.from_config(dict(config))
        scheduler.set_timesteps(**(timesteps or {"num_inference_steps": steps}))
        return Sampler(scheduler)
    check_steps(config, steps)
    if name == "model":
        # What clips latents to [-1, 1] or by their quantiles is made for models of pixels.
        safe = {"clip_sample": False, "thresholding": False}
        scheduler = getattr(diffusers, config["_class_name"]).from_config({**config, **safe})
    else:
        scheduler = SCHEDULERS[name](**own_schedule(name, config))
    scheduler.set_timesteps(steps)
    if len(scheduler.timesteps) != steps:
        raise UserError(f"sampling_steps is {steps}: the model's own sampler makes {len(scheduler.timesteps)} of it")
    return Sampler(scheduler)


def own_schedule(name: str, config: Mapping[str, Any]) -> dict[str, Any]:
    """What a scheduler of `SCHEDULERS` is made of, for the model whose scheduler_config.json is `config`."""
    noise = {key: config[key] for key in SCHEDULE_KEYS if config.get(key) is not None}
    extra = {"clip_sample": False} if name != "euler" else {}
    extra |= {"set_alpha_to_one": False} if name == "ddim" else {}
    return {**noise, "timestep_spacing": spacing_of(config), **extra}


def dynamic_shift(config: Mapping[str, Any], latent_size: Sequence[int], patch: int, most: float) -> float | None:
    """mu of a flow-matching schedule that depends on the image's size, or None where it does not.

    Linear in the number of the image's tokens, as in the stock pipelines; `most` is their default of `max_shift`.
    """
    if not config.get("use_dynamic_shifting"):
        return None
    tokens = (latent_size[0] // patch) * (latent_size[1] // patch)
    few, many = config.get("base_image_seq_len", 256), config.get("max_image_seq_len", 4096)
    low, high = config.get("base_shift", 0.5), config.get("max_shift", most)
    return low + (high - low) * (tokens - few) / (many - few)


def even_flow(name: str, config: Mapping[str, Any], steps: int, latent_size: Sequence[int], patch: int) -> Sampler:
    """A sampler of evenly spaced noise levels, shifted by the image's size where the schedule says so, as in the stock
    pipelines of FLUX.1 and those made after it.
    """
    if config.get("use_flow_sigmas"):
        asked: dict[str, Any] = {"num_inference_steps": steps}
    else:
        asked = {"sigmas": np.linspace(1.0, 1 / steps, steps)}
    mu = dynamic_shift(config, latent_size, patch, most=1.15)
    return make_sampler(name, config, steps, flow=True, **asked, **({} if mu is None else {"mu": mu}))


def flow_times(sampler: Sampler, count: int, rng: torch.Generator) -> Tensor:
    """Timesteps (count,) from a sampler of 1000 steps, logit-normal with mean 0 and deviation 1."""
    where = torch.sigmoid(torch.randn(count, generator=rng))
    return sampler.timesteps[(where * len(sampler)).long()]


def training_target(
    config: Mapping[str, Any], z0: Tensor, noise: Tensor, t: Tensor, *, flow: bool
) -> tuple[Tensor, Tensor]:
    """What the denoiser sees of z0 (B, C, h, w) at timesteps t (B,), and what it should say, of the same shape."""
    if flow:
        sigma = (t / 1000).view(-1, 1, 1, 1)
        return (1 - sigma) * z0 + sigma * noise, noise - z0
    scheduler = make_sampler("ddpm", config, 1).scheduler
    kind = scheduler.config["prediction_type"]
    target = scheduler.get_velocity(z0, noise, t) if kind == "v_prediction" else {"epsilon": noise, "sample": z0}[kind]
    return scheduler.add_noise(z0, noise, t), target
