"""Composable Diffusion (Liu et al., "Compositional Visual Generation with Composable Diffusion Models", ECCV 2022)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from comat.diffusion.backbones import Backbone, PromptEmbeddings
from comat.diffusion.schedulers import Sampler
from comat.errors import UserError
from comat.samples.methods.base import Told


@dataclass
class _Composed:
    backbone: Backbone
    concepts: Sequence[PromptEmbeddings]  # of each prompt, one row a concept
    weight: float

    def before(self, z: Tensor, index: int) -> Tensor:
        return z

    def guided(self, x: Tensor, t: Tensor) -> Tensor:
        """Eq. 11: eps(x) + sum_i w (eps(x | c_i) - eps(x))."""
        rows = [row for row, own in enumerate(self.concepts) for _ in range(len(own))]
        prompts = PromptEmbeddings.cat([self.backbone.null.repeat(len(x)), *self.concepts])
        said = self.backbone.denoise(torch.cat([x, x[rows]]), t, prompts)
        unconditional, conditional = said[: len(x)], said[len(x) :]
        difference = self.weight * (conditional - unconditional[rows])
        return unconditional.index_add(0, torch.tensor(rows, device=x.device), difference)


class ComposableDiffusion:
    """The conjunction (AND) of a prompt's entities, each with the whole guidance scale as its weight.

    The original composes what the user has split; here a prompt is split into its entities, with their attributes. A
    prompt without entities is one concept, so ordinary guidance.
    """

    def begin(self, backbone: Backbone, _sampler: Sampler, told: Sequence[Told], guidance_scale: float) -> _Composed:
        if backbone.family.distilled:
            raise UserError(
                "composable: it adds up predictions with a prompt and without; guidance is distilled into this model"
            )
        concepts = [[phrase.text for phrase in one.phrases] or [one.text] for one in told]
        return _Composed(backbone, [backbone.encode_prompts(own) for own in concepts], guidance_scale)
