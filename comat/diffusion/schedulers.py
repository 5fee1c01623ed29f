"""Samplers by name, from a model's own noise schedule."""

from __future__ import annotations

from diffusers import DDIMScheduler, DDPMScheduler, EulerDiscreteScheduler, SchedulerMixin

SCHEDULERS: dict[str, type[SchedulerMixin]] = {
    "ddpm": DDPMScheduler,
    "ddim": DDIMScheduler,
    "euler": EulerDiscreteScheduler,
}
_NOISE = ("num_train_timesteps", "beta_start", "beta_end", "beta_schedule", "prediction_type")


def make_scheduler(name: str, config: dict, steps: int) -> SchedulerMixin:
    """A fresh scheduler over `steps` steps. It keeps the model's noise schedule; latents are never clipped."""
    noise = {key: config[key] for key in _NOISE if config.get(key) is not None}
    extra = {"clip_sample": False} if name != "euler" else {}
    extra |= {"set_alpha_to_one": False} if name == "ddim" else {}
    scheduler = SCHEDULERS[name](
        **noise, timestep_spacing="leading", steps_offset=config.get("steps_offset", 1), **extra
    )
    scheduler.set_timesteps(steps)
    return scheduler
