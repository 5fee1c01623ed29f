"""Replay: the recorded steps once more, now with gradients.

With g_i = dL/d(leaf i) from the rollout's small graph, sum_i <g_i, guided_i(theta)> has the gradient of L with respect
to the LoRA weights theta: the predictions enter L through the leaves alone. Memory holds the denoiser's activations of
one chunk.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from comat.diffusion.attention import AttentionMaps, recorded_maps
from comat.diffusion.backbones import Backbone, PromptEmbeddings
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
    already; the map loss takes it here. At most `chunk` predictions are made at once, those of different steps together
    where nothing is asked of their maps.
    """
    looked_at = sorted(maps.steps) if maps else []
    plain = [index for index in sorted(gradients) if index not in looked_at]
    if plain:
        x, t, prompts, leaf = _side_by_side(rollout, plain, gradients)
        for span in spans(len(x), chunk):
            prediction = backbone.guided(x[span], t[span], prompts[span], guidance_scale)
            (leaf[span] * prediction).sum().backward()
    values = []
    for index in looked_at:
        assert maps is not None
        x, t = rollout.inputs[index], rollout.timesteps[index]
        prompts = _prompts(rollout, index)
        for span in spans(len(x), chunk):
            loss = x.new_zeros(())
            with recorded_maps(backbone.denoiser, maps.layers) as recording:
                prediction = backbone.guided(x[span], t, prompts[span], guidance_scale)
                if index in gradients:
                    loss = loss + (gradients[index][span] * prediction).sum()
                attention = maps.loss(recording.collect(backbone.layout(x.shape[-2:]), len(x[span])), span)
                loss = loss + loss_scale * attention
                values.append(attention.detach())
                # Inside, for a checkpointed block runs again as it ran at first: with its recorders.
                if loss.requires_grad:  # of a span without entities the map loss is a constant
                    loss.backward()
    return values


def _side_by_side(
    rollout: Rollout, steps: Sequence[int], gradients: Mapping[int, Tensor]
) -> tuple[Tensor, Tensor, PromptEmbeddings, Tensor]:
    """The predictions of all `steps` as one batch: what the denoiser saw, when, of which prompts, their gradients."""
    inputs = [rollout.inputs[index] for index in steps]
    times = [rollout.timesteps[index].expand(len(x)) for index, x in zip(steps, inputs, strict=True)]
    prompts = PromptEmbeddings.cat([_prompts(rollout, index) for index in steps])
    return torch.cat(inputs), torch.cat(times), prompts, torch.cat([gradients[index] for index in steps])


def _prompts(rollout: Rollout, index: int) -> PromptEmbeddings:
    return rollout.prompts[torch.tensor(rollout.rows[index], device=rollout.inputs[index].device)]


def spans(total: int, chunk: int) -> list[slice]:
    """[0, total) in pieces of at most `chunk`."""
    return [slice(at, min(at + chunk, total)) for at in range(0, total, chunk)]
