"""The plain implementation that replay must equal: one autograd graph through every recorded step.

Deliberately naive: no chunks, no merging, explicit attention maps at every attribute step, one backward pass. As such
code usually does, it may checkpoint the UNet's blocks and materialise the probabilities of every attention layer.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from diffusers import UNet2DConditionModel
from diffusers.models.attention_processor import Attention, AttnProcessor
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from comat.diffusion.attention import AttentionMaps, recorded_maps
from comat.diffusion.schedulers import Sampler
from comat.method.attribute_concentration import attribute_concentration_loss
from comat.method.batch import Batch
from comat.method.concept_activation import captioners_loss
from comat.method.fidelity_preservation import generator_loss
from comat.method.mixed_latents import draw_start
from comat.method.step import Step, place_steps
from comat.randomness import noise


def full_graph_loss(step: Step, batch: Batch) -> Tensor:
    """What `step` computes on `batch`, with its noise, steps and masks, as one differentiable scalar."""
    loss = eq6(step, batch) if step.p.generates else batch.real.latents.new_zeros(())
    for row in range(len(batch.real)) if step.p.noises_real else ():
        loss = loss + noised_loss(step, batch, row) / len(batch.real)
    return loss


def eq6(step: Step, batch: Batch) -> Tensor:
    """Eq. 6, on generated images and mixed latents."""
    p, backbone = step.p, step.backbone
    steps, map_steps = step.draw_steps(batch.iteration)
    own = [step.generator("noise", batch.iteration, row) for row in range(len(batch.prompts))]
    shape = backbone.latent_shape(p.resolution)
    sampler = backbone.sampler(p.scheduler, p.sampling_steps, shape[1:])
    z = sampler.first(noise(shape, own))
    z0, maps = sample(step, sampler, z, batch.prompts, own, 0, steps, map_steps)
    images, loss = backbone.decode(z0), z0.new_zeros(())
    prompts = list(batch.prompts)
    if batch.real and step.captioner:
        rows = [denoise_real(step, batch, row) for row in range(len(batch.real))]
        real, captions = torch.cat(rows), batch.real.captions
        images, prompts = torch.cat([images, backbone.decode(real)]), [*prompts, *captions]
    if step.captioner:
        loss = loss + captioners_loss(step.captioner, images, prompts, p.caption_reduction)[0].mean()
    if step.discriminator:
        loss = loss + p.lambda_adv * generator_loss(step.discriminator(z0)).mean()
    if step.segmenter:
        nouns = [[entity.noun for entity in group] for group in batch.entities]
        masks = step.segmenter.masks(images[: len(nouns)].detach(), nouns)
        for recorded in maps:
            squared, reduction = p.attribute_loss == "tokencompose", p.attribute_reduction
            value = attribute_concentration_loss(recorded, batch.entities, masks, p.alpha, p.beta, squared, reduction)
            loss = loss + value / (len(nouns) * (len(maps) if reduction == "mean" else 1))
    return loss


def noised_loss(step: Step, batch: Batch, row: int) -> Tensor:
    """Eq. 1 on one real image with its weight, and the losses on the maps of that pass."""
    p, backbone = step.p, step.backbone
    rng = step.generator("denoising", batch.iteration, row)
    latent, caption = batch.real.latents[row : row + 1], batch.real.captions[row]
    t = backbone.draw_times(1, latent.shape[-2:], rng)
    z, target = backbone.training_target(latent, noise(latent.shape[1:], [rng]), t)
    with recorded_maps(backbone.denoiser, step.layers if step.real_segmenter else ()) as recording:
        said = backbone.denoise(z, t, backbone.encode_prompts([caption]))
    loss = p.denoising_weight * F.mse_loss(said, target)
    if step.real_segmenter:
        maps = recording.collect(backbone.layout(z.shape[-2:]), 1)
        entities = batch.real.entities[row]
        (masks,) = step.real_segmenter.masks(backbone.decode(latent), [[entity.noun for entity in entities]])
        there = [entity for entity, mask in zip(entities, masks, strict=True) if mask.any()]
        seen = masks[torch.tensor([bool(mask.any()) for mask in masks], dtype=torch.bool)]
        squared, reduction = p.attribute_loss == "tokencompose", p.attribute_reduction
        loss = loss + attribute_concentration_loss(maps, [there], [seen], p.alpha, p.beta, squared, reduction)
    return loss


def denoise_real(step: Step, batch: Batch, row: int) -> Tensor:
    """Final latents (1, C, h, w) of one noisy real image."""
    p, backbone = step.p, step.backbone
    shape = backbone.latent_shape(p.resolution)
    sampler = backbone.sampler(p.scheduler, p.sampling_steps, shape[1:])
    rng = step.generator("tau", batch.iteration, row)
    start = draw_start(sampler, p.mixed_latent_t1, p.mixed_latent_t2, rng)
    own = [step.generator("real noise", batch.iteration, row)]
    latents = batch.real.latents[row : row + 1]
    noisy = sampler.noisy(latents, noise(shape, own), [start])
    steps = place_steps(start, p.sampling_steps, p.grad_steps, rng)
    return sample(step, sampler, noisy, batch.real.captions[row : row + 1], own, start, steps, [])[0]


def sample(
    step: Step,
    sampler: Sampler,
    z: Tensor,
    prompts: Sequence[str],
    own: Sequence[torch.Generator],
    start: int,
    steps: Sequence[int],
    map_steps: Sequence[int],
) -> tuple[Tensor, list[AttentionMaps]]:
    """Final latents, and the attention maps of `map_steps`."""
    backbone, maps = step.backbone, []
    embeddings = backbone.encode_prompts(prompts)
    sampler = sampler.begun(start)
    for index in range(start, len(sampler)):
        x = sampler.seen(z.detach(), index)
        layers = step.layers if index in map_steps else ()
        with torch.set_grad_enabled(index in steps), recorded_maps(backbone.denoiser, layers) as recording:
            prediction = backbone.guided(x, sampler.timesteps[index], embeddings, step.p.guidance_scale)
        if layers:
            maps.append(recording.collect(backbone.layout(x.shape[-2:]), len(x)))
        z = sampler.step(prediction, index, z, own)
    return z, maps


def checkpoint_blocks(unet: UNet2DConditionModel) -> None:
    """Gradient checkpointing by diffusers; a block runs again with the attention processors of its first time."""

    def run(block: nn.Module, *args: Tensor) -> Tensor:
        first = {layer: layer.processor for layer in block.modules() if isinstance(layer, Attention)}

        def again(*args: Tensor) -> Tensor:
            now = {layer: layer.processor for layer in first}
            _use(first)
            try:
                return block(*args)
            finally:
                _use(now)

        return checkpoint(again, *args, use_reentrant=False)

    unet.enable_gradient_checkpointing(run)


def _use(processors: Mapping[Attention, AttnProcessor]) -> None:
    for layer, processor in processors.items():
        layer.processor = processor


def materialise_attention(unet: UNet2DConditionModel) -> None:
    """Every attention layer computes its probabilities as a tensor, as code that reads or edits them does."""
    unet.set_attn_processor(AttnProcessor())
