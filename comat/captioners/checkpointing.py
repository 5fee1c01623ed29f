"""Gradient checkpointing of frozen captioners, by transformers' own layers."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from torch import nn
from torch.utils.checkpoint import checkpoint
from transformers import PreTrainedModel
from transformers.modeling_layers import GradientCheckpointingLayer

AGAIN = partial(checkpoint, use_reentrant=False)


def checkpoint_layers(model: nn.Module, how: Callable = AGAIN) -> None:
    """Let the layers of a model run again in the backward pass, not keeping activations; of one that cannot, none do.

    transformers does so in training mode alone, where modules drop out: of a layer only its own flag is set, and what
    is in it stays in evaluation mode.
    """
    if not (isinstance(model, PreTrainedModel) and model.supports_gradient_checkpointing):
        return
    model._set_gradient_checkpointing(enable=True, gradient_checkpointing_func=how)
    for layer in model.modules():
        if isinstance(layer, GradientCheckpointingLayer):
            layer.training = True
