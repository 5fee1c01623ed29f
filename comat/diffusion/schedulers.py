"""Samplers by name, from a model's own noise schedule."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol, cast

import torch
from diffusers import DDIMScheduler, DDPMScheduler, EulerDiscreteScheduler
from diffusers.schedulers.scheduling_utils import SchedulerOutput
from torch import Tensor

from comat.errors import UserError
from comat.models.fit import SCHEDULE_KEYS, check_steps, not_carried, spacing_of


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


def make_scheduler(name: str, config: dict, steps: int) -> Scheduler:
    """A fresh scheduler over `steps` steps of the model's own noise schedule and spacing; latents are never clipped.

    Raises:
        UserError: if the configuration of the schedule says what no sampler here heeds, or the steps do not fit it.
    """
    for key, expected in not_carried(config):
        raise UserError(f"scheduler_config.json of the base model: {key} is {config[key]!s:.60}: expected {expected}")
    check_steps(config, steps)
    noise = {key: config[key] for key in SCHEDULE_KEYS if config.get(key) is not None}
    extra = {"clip_sample": False} if name != "euler" else {}
    extra |= {"set_alpha_to_one": False} if name == "ddim" else {}
    scheduler = SCHEDULERS[name](**{**noise, "timestep_spacing": spacing_of(config)}, **extra)
    scheduler.set_timesteps(steps)
    return cast(Scheduler, scheduler)
