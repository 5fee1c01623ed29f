"""The learning rate of each iteration, from its number alone: a resumed run has no state of it to restore."""

from __future__ import annotations

from math import cos, pi

from comat.params import OptimizationParams


def learning_rate(params: OptimizationParams, iteration: int) -> float:
    """The LoRA's learning rate in `iteration`, from 0, by `learning_rate_schedule`.

    `linear` and `cosine` begin with `learning_rate` and are zero from iteration `train_steps` on, which is the first
    that no run does, as diffusers' schedules of these names without warm-up steps; the paper's is `constant` (Table 8).
    The discriminator's does not change.
    """
    done = min(1.0, iteration / max(1, params.train_steps))
    share = {"constant": 1.0, "linear": 1 - done, "cosine": (1 + cos(pi * done)) / 2}
    return params.learning_rate * share[params.learning_rate_schedule]
