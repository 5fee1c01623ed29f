"""What a training-free method may change of sampling: the latents before a step, and the guided prediction."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from comat.diffusion.backbones import Backbone, PromptEmbeddings
from comat.diffusion.sampling import begun
from comat.diffusion.schedulers import Sampler
from comat.models.finite import finite
from comat.params import SamplingParams
from comat.randomness import generator


@dataclass(frozen=True)
class Phrase:
    """An entity of a prompt: its words ("a red ball") and where in the attention maps its noun stands."""

    text: str
    noun_columns: tuple[int, ...]


@dataclass(frozen=True)
class Told:
    """A prompt with its entities, in their order."""

    text: str
    phrases: tuple[Phrase, ...] = ()


class Drawing(Protocol):
    """One batch under way: prompts with their embeddings, by one method."""

    def before(self, z: Tensor, index: int) -> Tensor:
        """z (B, C, h, w) as step `index` shall find it."""

    def guided(self, x: Tensor, t: Tensor) -> Tensor:
        """The guided prediction for what the denoiser sees, x (B, C, h, w), at timestep t."""


class Method(Protocol):
    def begin(self, backbone: Backbone, sampler: Sampler, told: Sequence[Told], guidance_scale: float) -> Drawing:
        """Prepare a batch.

        Raises:
            UserError: if the method does not work on a model of this family.
        """


@dataclass
class Plain:
    """Sampling as it is, which methods change in part."""

    backbone: Backbone
    prompts: PromptEmbeddings
    guidance_scale: float

    def before(self, z: Tensor, index: int) -> Tensor:
        return z

    def guided(self, x: Tensor, t: Tensor) -> Tensor:
        return self.backbone.guided(x, t, self.prompts, self.guidance_scale)


@torch.no_grad()
def sample_by(
    method: Method,
    backbone: Backbone,
    params: SamplingParams,
    told: Sequence[Told],
    keys: Sequence[tuple[str, int]],
    purpose: str,
) -> Tensor:
    """Final latents (B, C, h, w), from the noise that `sample_latents` starts from with the same keys."""
    own = [generator(params.seed, purpose, *key) for key in keys]
    sampler, z = begun(backbone, params, own, params.resolution)
    drawing = method.begin(backbone, sampler, told, params.guidance_scale)
    for index in range(len(sampler)):
        z = drawing.before(z, index)
        prediction = drawing.guided(sampler.seen(z, index), sampler.timesteps[index].to(z.device))
        z = sampler.step(prediction, index, z, own)
    return finite(z, "the denoiser, drawing by a training-free method", backbone.dtype)
