"""Prompts whose last words are mixtures of words: what the text encoders make of them, with gradients."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from comat.diffusion.backbones import Backbone, PromptEmbeddings
from comat.errors import UserError
from comat.finished.attack.words import Words


def behind(prompt: str, words: Sequence[str]) -> str:
    return " ".join([prompt, *words])


def encode(backbone: Backbone, prompt: str, words: Words, shares: Tensor) -> PromptEmbeddings:
    """`prompt` and S mixtures behind it, (1, L, D), differentiable in `shares` (S, V), each row of sum 1.

    In every text encoder the token embedding of a mixture is the mean of those of its words, weighted by their shares.

    Raises:
        UserError: if the encoders do not read the prompt to its end, or its embeddings are made beforehand.
    """
    place = words.texts.index(placeholder(prompt, words))
    with contextlib.ExitStack() as stack:
        for encoder, ids in zip(backbone.text_encoders, words.ids, strict=True):
            for layer in _tables(encoder):
                stack.enter_context(_mixed(layer, ids.to(encoder.device), place, shares))
        return backbone.encode_with_gradients(behind(prompt, [words.texts[place]] * len(shares)))


def placeholder(prompt: str, words: Words) -> str:
    """A word that stands nowhere in the prompt, to find the places of the mixtures by."""
    return next(word for word in words.texts if word not in prompt.lower())


def _tables(encoder: PreTrainedModel) -> list[nn.Module]:
    """The layers that look tokens up: an encoder-decoder's stacks have one of their own each, with the same weights."""
    weight = encoder.get_input_embeddings().weight
    return [layer for layer in encoder.modules() if isinstance(layer, nn.Embedding) and layer.weight is weight]


@contextlib.contextmanager
def _mixed(layer: nn.Module, ids: Tensor, place: int, shares: Tensor) -> Iterator[None]:
    """Within, the layer gives the mixtures in the place of the tokens `ids[place]`."""

    def mix(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
        at = inputs[0] == ids[place]
        if int(at.sum()) != len(shares):
            raise UserError(
                f"the text encoder reads {int(at.sum())} of {len(shares)} words behind the prompt: take a "
                "shorter prompt, or fewer words"
            )
        table = module.get_parameter("weight")[ids]
        mixtures = (shares.to(table.device) @ table.float()).to(output.dtype)
        return torch.zeros_like(output).masked_scatter(at[..., None], mixtures) + output * ~at[..., None]

    handle = layer.register_forward_hook(mix)
    try:
        yield
    finally:
        handle.remove()
