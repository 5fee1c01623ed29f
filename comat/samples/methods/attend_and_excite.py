"""Attend-and-Excite (Chefer et al., "Attend-and-Excite: Attention-Based Semantic Guidance for Text-to-Image Diffusion
Models", SIGGRAPH 2023)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from comat.diffusion.attention import AttentionMaps, recorded_maps
from comat.diffusion.backbones import Backbone, PromptEmbeddings
from comat.diffusion.schedulers import Sampler
from comat.samples.methods.base import Plain, Told

SHARPNESS = 100
"""Of the softmax over the words, as in the authors' code."""
STEP = 20.0
"""Size of a step of the latents, times the root of what falls from 1 to 0.5 over sampling."""
ALTERED = 0.5
"""Share of the sampling steps before which latents are altered: 25 of 50."""
WANTED = {0.0: 0.05, 0.2: 0.5, 0.4: 0.8}
"""Share of the sampling steps → the attention that every noun must have got there: at steps 0, 10 and 20 of 50."""
MOST_REFINEMENTS = 20


@dataclass(frozen=True)
class _Words:
    """Where in the attention maps a prompt begins, and where its nouns are."""

    first: int
    nouns: Sequence[int]


@dataclass
class _Excited(Plain):
    sampler: Sampler
    words: Sequence[_Words]

    def before(self, z: Tensor, index: int) -> Tensor:
        if index >= ALTERED * len(self.sampler):
            return z
        rows = [slice(row, row + 1) for row in range(len(z))]
        altered = [
            self._altered(z[row], index, self.prompts[row], own) if own.nouns else z[row]
            for row, own in zip(rows, self.words, strict=True)
        ]
        return torch.cat(altered)

    def _altered(self, z: Tensor, index: int, prompt: PromptEmbeddings, words: _Words) -> Tensor:
        """One sample's latents, a step towards more attention to its most neglected noun (Algorithm 1)."""
        steps = len(self.sampler)
        size = STEP * (1 - 0.5 * index / max(1, steps - 1)) ** 0.5
        wanted = {round(share * steps): attention for share, attention in WANTED.items()}
        most = 1 - wanted.get(index, 0.0)
        loss, gradient = self._neglect(z, index, prompt, words)
        for _ in range(MOST_REFINEMENTS if loss > most else 0):
            reached = loss <= most  # as in the authors' code one more step is taken from where it is
            z = z - size * gradient
            loss, gradient = self._neglect(z, index, prompt, words)
            if reached:
                break
        return z - size * gradient

    def _neglect(self, z: Tensor, index: int, prompt: PromptEmbeddings, words: _Words) -> tuple[float, Tensor]:
        """Eq. 1 and 2: how far the most neglected noun is from one pixel's whole attention, and dL/dz."""
        with torch.enable_grad():
            z = z.detach().requires_grad_()
            with recorded_maps(self.backbone.denoiser, self.backbone.attention_layers()) as recording:
                t = self.sampler.timesteps[index].to(z.device)
                self.backbone.denoise(self.sampler.seen(z, index), t, prompt, self.guidance_scale)
            maps = recording.collect(self.backbone.layout(z.shape[-2:]), 1)
            got = excitation(_mean_map(maps, z.shape[-2] // 4), words.nouns, words.first)
            loss = (1 - got).clamp(min=0).max()
            return float(loss.detach()), torch.autograd.grad(loss, z)[0]


def _mean_map(maps: AttentionMaps, side: int) -> Tensor:
    """(h, w, L) of what the text gets: mean over layers and heads whose maps are nearest to `side`, 16 at 512 px."""
    nearest = min({m.shape[2] for m in maps.values()}, key=lambda size: (abs(size - side), size))
    mean = torch.cat([m[0] for m in maps.values() if m.shape[2] == nearest]).mean(0)
    return mean / mean.sum(-1, keepdim=True)


def excitation(attention: Tensor, nouns: Sequence[int], first: int) -> Tensor:
    """The most attention that a pixel gives to each noun, (N,), of maps (h, w, L).

    From column `first` on, where the prompt begins behind the start token, without the last: sharpened by a softmax,
    smoothed by a Gaussian of 3 x 3.
    """
    share = (SHARPNESS * attention[..., first:-1]).softmax(-1)
    own = share[..., [column - first for column in nouns]].permute(2, 0, 1)[:, None]
    line = torch.exp(-(torch.arange(-1.0, 2.0, device=own.device) ** 2))  # of deviation 0.5, as in the authors' code
    kernel = line[:, None] * line
    smooth = F.conv2d(F.pad(own, (1, 1, 1, 1), mode="reflect"), (kernel / kernel.sum())[None, None])
    return smooth.flatten(1).amax(1)


class AttendAndExcite:
    """Before a step, the latents go down the gradient of the most neglected noun's attention.

    The numbers are the authors' at 50 steps; at other numbers of steps their places move along.
    """

    def begin(self, backbone: Backbone, sampler: Sampler, told: Sequence[Told], guidance_scale: float) -> _Excited:
        prompts = backbone.encode_prompts([one.text for one in told])
        words = [
            _Words(
                min(backbone.spoken(one.text), default=0),
                [column for phrase in one.phrases for column in phrase.noun_columns],
            )
            for one in told
        ]
        return _Excited(backbone, prompts, guidance_scale, sampler, words)
