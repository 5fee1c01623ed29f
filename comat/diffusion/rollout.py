"""Rollout: sampling without gradients, with the guided predictions of chosen steps kept as autograd leaves.

The denoiser's input is detached at every step (Sec. 4.1, after deep reward supervision), so the final latent depends on
a recorded prediction only through the scheduler's own arithmetic. Autograd runs through that arithmetic alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from comat.diffusion.backbones import Backbone, PromptEmbeddings
from comat.diffusion.schedulers import Sampler


@dataclass
class Rollout:
    """What sampling leaves behind.

    `z0` (B, C, h, w): final latents of `prompts`, with a graph to `leaves`. Of step i: `rows[i]`, the samples that are
    recorded there; `leaves[i]`, their guided predictions, the leaf; `inputs[i]`, what the denoiser saw, as the sampler
    gives it; `timesteps[i]`, its timestep.
    """

    z0: Tensor
    prompts: PromptEmbeddings
    rows: dict[int, list[int]] = field(default_factory=dict)
    leaves: dict[int, Tensor] = field(default_factory=dict)
    inputs: dict[int, Tensor] = field(default_factory=dict)
    timesteps: dict[int, Tensor] = field(default_factory=dict)


def rollout(
    backbone: Backbone,
    sampler: Sampler,
    z: Tensor,
    prompts: PromptEmbeddings,
    guidance_scale: float,
    generators: Sequence[torch.Generator],
    *,
    starts: Sequence[int] = (),
    record: Sequence[Sequence[int]] = (),
    chunk: int,
) -> Rollout:
    """Denoise z (B, C, h, w) to the end by the steps of a fresh `sampler`.

    Args:
        generators: each sample's own noise for ancestral schedulers.
        starts: each sample's first step, up to which it waits; by default 0.
        record: each sample's recorded steps; by default none.
        chunk: samples that go through the denoiser at once.
    """
    result = Rollout(z, prompts)
    starts, record = starts or [0] * len(z), record or [()] * len(z)
    # One copy to the device for all steps; the scheduler's own arithmetic reads them on the host.
    timesteps = sampler.timesteps.to(z.device)
    # Samples that start later have a trajectory of their own: some schedulers remember the steps before.
    places = {start: [row for row, own in enumerate(starts) if own == start] for start in sorted(set(starts))}
    samplers = {start: sampler.begun(start) for start in places}
    for index in range(min(starts), len(sampler)):
        under_way = [row for row, start in enumerate(starts) if start <= index]
        recorded = [place for place, row in enumerate(under_way) if index in record[row]]
        with torch.no_grad():
            scaled = z.detach()
            for start, rows in places.items():
                if start <= index:
                    scaled = _with(scaled, rows, samplers[start].seen(_taken(scaled, rows), index))
            x = _taken(scaled, under_way)
            seen = prompts if len(under_way) == len(z) else prompts[torch.tensor(under_way, device=z.device)]
            prediction = guided_in_chunks(backbone, x, timesteps[index], seen, guidance_scale, chunk)
        if recorded:
            leaf = _taken(prediction, recorded).requires_grad_()
            result.rows[index] = [under_way[place] for place in recorded]
            result.leaves[index], result.inputs[index] = leaf, _taken(x, recorded)
            result.timesteps[index] = timesteps[index]
            prediction = _with(prediction, recorded, leaf)
        for start, rows in places.items():
            if start <= index:
                own = _taken(prediction, [under_way.index(row) for row in rows])
                noise = [generators[row] for row in rows]
                z = _with(z, rows, samplers[start].step(own, index, _taken(z, rows), noise))
    result.z0 = z
    return result


def _taken(values: Tensor, rows: Sequence[int]) -> Tensor:
    """Some rows of (B, ...), in their order; all of them as they are."""
    return values if len(rows) == len(values) else values[torch.tensor(rows, device=values.device)]


def _with(values: Tensor, rows: Sequence[int], new: Tensor) -> Tensor:
    """(B, ...) with some rows replaced."""
    if len(rows) == len(values):
        return new
    return values.index_copy(0, torch.tensor(rows, device=values.device), new)


def guided_in_chunks(
    backbone: Backbone, x: Tensor, t: Tensor, prompts: PromptEmbeddings, guidance_scale: float, chunk: int
) -> Tensor:
    """`Backbone.guided` while sampling, at most `chunk` samples at once."""
    spans = [slice(at, at + chunk) for at in range(0, len(x), chunk)]
    return torch.cat([backbone.guided(x[span], t, prompts[span], guidance_scale, sampling=True) for span in spans])
