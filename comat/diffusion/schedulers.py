"""Samplers by name, from a model's own noise schedule."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol, cast

import torch
from diffusers import DDIMScheduler, DDPMScheduler, EulerDiscreteScheduler
from diffusers.schedulers.scheduling_utils import SchedulerOutput
from torch import Tensor


class Scheduler(Protocol):
    """What the samplers have in common; their own annotations name less than they take."""

    timesteps: Tensor
    """(T,), descending."""

    @property
    def config(self) -> Mapping[str, Any]: ...

    @property
    def init_noise_sigma(self) -> float | Tensor: ...

    def set_timesteps(self, num_inference_steps: int) -> None: ...

    def scale_model_input(self, sample: Tensor, timestep: Tensor) -> Tensor: ...

    def step(
        self, model_output: Tensor, timestep: Tensor, sample: Tensor, *, generator: Sequence[torch.Generator]
    ) -> SchedulerOutput: ...

    def add_noise(self, original_samples: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor: ...

    def get_velocity(self, sample: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor: ...


SCHEDULERS = {"ddpm": DDPMScheduler, "ddim": DDIMScheduler, "euler": EulerDiscreteScheduler}
_NOISE = ("num_train_timesteps", "beta_start", "beta_end", "beta_schedule", "prediction_type")


def make_scheduler(name: str, config: dict, steps: int) -> Scheduler:
    """A fresh scheduler over `steps` steps. It keeps the model's noise schedule; latents are never clipped."""
    noise = {key: config[key] for key in _NOISE if config.get(key) is not None}
    extra = {"clip_sample": False} if name != "euler" else {}
    extra |= {"set_alpha_to_one": False} if name == "ddim" else {}
    scheduler = SCHEDULERS[name](
        **noise, timestep_spacing="leading", steps_offset=config.get("steps_offset", 1), **extra
    )
    scheduler.set_timesteps(steps)
    return cast(Scheduler, scheduler)
