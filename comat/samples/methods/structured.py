"""Structured Diffusion (Feng et al., "Training-Free Structured Diffusion Guidance for Compositional Text-to-Image
Synthesis", ICLR 2023)."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from comat.diffusion.backbones import Backbone
from comat.diffusion.schedulers import Sampler
from comat.errors import UserError
from comat.samples.methods.base import Plain, Told


@dataclass
class _Structured(Plain):
    values: Tensor
    """(B, L, D): of each prompt the mean of its sequences W_p, W_1 .. W_k."""

    def guided(self, x: Tensor, t: Tensor) -> Tensor:
        with _other_values(self.backbone, self.values):
            return super().guided(x, t)


@contextlib.contextmanager
def _other_values(backbone: Backbone, values: Tensor) -> Iterator[None]:
    """Let the cross-attention read its values from `values`, (B, L, D), where it is asked with the prompt.

    `to_v` is linear, so the mean of the values (Eq. 6) is the value of the mean.
    """

    def replaced(_module: torch.nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
        given = args[0]
        return (torch.cat([given[: len(given) - len(values)], values.to(given.dtype)]), *args[1:])

    hooks = [
        backbone.denoiser.get_submodule(f"{name}.to_v").register_forward_pre_hook(replaced)
        for name in backbone.attention_layers()
    ]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


class StructuredDiffusion:
    """Each noun phrase is encoded by itself, too, so that other words do not colour it (Algorithm 1).

    Keys are those of the whole prompt; values are the mean over the whole prompt and its sequences with one noun phrase
    put in the place of its words (Eq. 4 to 6).
    """

    def begin(self, backbone: Backbone, _sampler: Sampler, told: Sequence[Told], guidance_scale: float) -> _Structured:
        if backbone.TEXT != "cross":
            raise UserError(
                "structured: it changes what cross-attention reads, and this model's does not read the text encoders' "
                "words as they are; take another method"
            )
        prompts = backbone.encode_prompts([one.text for one in told])
        means = [_mean_sequence(backbone, one, prompts.tokens[row]) for row, one in enumerate(told)]
        return _Structured(backbone, prompts, guidance_scale, torch.stack(means))


def _mean_sequence(backbone: Backbone, told: Told, whole: Tensor) -> Tensor:
    """The mean of W_p (L, D) and of W_1 .. W_k, each W_p with the tokens of one phrase encoded by itself."""
    sequences = [whole]
    words = backbone.words(told.text)
    spoken = backbone.spoken(told.text)
    for phrase in told.phrases:
        own = backbone.spoken(phrase.text)
        wanted = [backbone.words(phrase.text)[column] for column in own]
        place = _find([words[column] for column in spoken], wanted, phrase.noun_columns, spoken)
        if place is None:
            continue  # its words do not stand beside each other
        alone = backbone.encode_prompts([phrase.text]).tokens[0]
        changed = whole.clone()
        changed[spoken[place : place + len(own)]] = alone[own]
        sequences.append(changed)
    return torch.stack(sequences).mean(0)


def _find(words: Sequence[str], wanted: Sequence[str], nouns: Sequence[int], columns: Sequence[int]) -> int | None:
    """Where the words of a phrase stand together with its noun among them."""
    size = len(wanted)
    for at in range(len(words) - size + 1):
        if list(words[at : at + size]) == list(wanted) and set(columns[at : at + size]) & set(nouns):
            return at
    return None
