"""Replay: the recorded steps once more, now with gradients, one after the other.

With g_i = dL/d(leaf i) from the rollout's small graph, sum_i <g_i, guided_i(theta)> has the gradient of L with respect
to the LoRA weights theta: the predictions enter L through the leaves alone. Memory holds one set of the denoiser's
activations.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from comat.diffusion.attention import AttentionMaps, recorded_maps
from comat.diffusion.backbones import Backbone
from comat.diffusion.rollout import Rollout

MapLoss = Callable[[AttentionMaps, slice], Tensor]
"""Loss on the attention maps of a span of the batch; summed over spans it is the loss of the batch."""


@dataclass(frozen=True)
class MapTerm:
    """A loss on the attention maps of `layers` at `steps` of the rollout, where every sample is recorded."""

    steps: Sequence[int]
    layers: Sequence[str]
    loss: MapLoss


def leaf_gradients(rollout: Rollout, z0_gradient: Tensor) -> dict[int, Tensor]:
    """dL/d(leaf) for every recorded step and the samples recorded there, from dL/dz0 (B, C, h, w)."""
    steps = list(rollout.leaves)
    # Kept, for another loss may ask again; it is the samplers' own arithmetic, small, and goes with the rollout.
    leaves = [rollout.leaves[i] for i in steps]
    gradients = torch.autograd.grad(rollout.z0, leaves, z0_gradient, retain_graph=True)
    return dict(zip(steps, gradients, strict=True))


def replay(
    backbone: Backbone,
    rollout: Rollout,
    gradients: Mapping[int, Tensor],
    guidance_scale: float,
    *,
    chunk: int,
    maps: MapTerm | None = None,
    loss_scale: float = 1.0,
) -> list[Tensor]:
    """Accumulate the gradient into the trainable weights; returns the map losses, one for each step and chunk.

    `gradients` may be empty (no loss on the image): then only the steps of `maps` are run. They hold `loss_scale`
    already; the map loss takes it here.
    """
    values = []
    for index in sorted({*gradients, *(maps.steps if maps else ())}):
        term = maps if maps and index in maps.steps else None
        x, t = rollout.inputs[index], rollout.timesteps[index]
        prompts = rollout.prompts[torch.tensor(rollout.rows[index], device=x.device)]
        for at in range(0, len(x), chunk):
            span = slice(at, min(at + chunk, len(x)))
            loss = x.new_zeros(())
            with recorded_maps(backbone.denoiser, term.layers if term else ()) as recording:
                prediction = backbone.guided(x[span], t, prompts[span], guidance_scale)
                if index in gradients:
                    loss = loss + (gradients[index][span] * prediction).sum()
                if term:
                    attention = term.loss(recording.collect(backbone.layout(x.shape[-2:]), len(x[span])), span)
                    loss = loss + loss_scale * attention
                    values.append(attention.detach())
                # Inside, for a checkpointed block runs again as it ran at first: with its recorders.
                if loss.requires_grad:  # of a span without entities the map loss is a constant
                    loss.backward()
    return values
