"""The plain implementation that replay must equal: one autograd graph through every recorded step.

Deliberately naive: no chunks, no merging, explicit attention maps at every attribute step, one backward pass. As such
code usually does, it may checkpoint the UNet's blocks and materialise the probabilities of every attention layer.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from diffusers import UNet2DConditionModel
from diffusers.models.attention_processor import Attention, AttnProcessor
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from comat.diffusion.attention import AttentionMaps, recorded_maps
from comat.diffusion.schedulers import Scheduler, make_scheduler
from comat.method.attribute_concentration import attribute_concentration_loss
from comat.method.concept_activation import captioners_loss
from comat.method.fidelity_preservation import generator_loss
from comat.method.mixed_latents import draw_start, noisy_latents
from comat.method.step import Batch, Step, place_steps
from comat.randomness import noise


def full_graph_loss(step: Step, batch: Batch) -> Tensor:
    """Eq. 6 on `batch`, with the noise, steps and masks of `step`, as one differentiable scalar."""
    p, backbone = step.p, step.backbone
    steps, map_steps = step.draw_steps(batch.iteration)
    own = [step.generator("noise", batch.iteration, row) for row in range(len(batch.prompts))]
    scheduler = make_scheduler(p.scheduler, backbone.scheduler_config, p.sampling_steps)
    z = noise(backbone.latent_shape(p.resolution), own) * scheduler.init_noise_sigma
    z0, maps = sample(step, scheduler, z, batch.prompts, own, 0, steps, map_steps)
    images, loss = backbone.decode(z0), z0.new_zeros(())
    prompts = list(batch.prompts)
    if batch.real and step.captioner:
        scheduler = make_scheduler(p.scheduler, backbone.scheduler_config, p.sampling_steps)
        rng = step.generator("tau", batch.iteration)
        start = draw_start(scheduler.timesteps, p.mixed_latent_t1, p.mixed_latent_t2, rng)
        own = [step.generator("real noise", batch.iteration, row) for row in range(len(batch.real))]
        latents, captions = batch.real.latents, batch.real.captions
        noisy = noisy_latents(scheduler, latents, noise(latents.shape[1:], own), start)
        steps = place_steps(start, p.sampling_steps, p.grad_steps, rng)
        real, _ = sample(step, scheduler, noisy, captions, own, start, steps, [])
        images, prompts = torch.cat([images, backbone.decode(real)]), [*prompts, *captions]
    if step.captioner:
        loss = loss + captioners_loss(step.captioner, images, prompts, p.caption_reduction)[0].mean()
    if step.discriminator:
        loss = loss + p.lambda_adv * generator_loss(step.discriminator(z0)).mean()
    if step.segmenter:
        nouns = [[entity.noun for entity in group] for group in batch.entities]
        masks = step.segmenter.masks(images[: len(nouns)].detach(), nouns)
        for recorded in maps:
            value = attribute_concentration_loss(recorded, batch.entities, masks, p.alpha, p.beta)
            loss = loss + value / (len(nouns) * len(maps))
    return loss


def sample(
    step: Step,
    scheduler: Scheduler,
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
    scheduler.set_begin_index(start) if hasattr(scheduler, "set_begin_index") else None
    for index in range(start, len(scheduler.timesteps)):
        t = scheduler.timesteps[index]
        x = scheduler.scale_model_input(z.detach(), t)
        layers = step.layers if index in map_steps else ()
        with torch.set_grad_enabled(index in steps), recorded_maps(backbone.unet, layers) as recording:
            prediction = backbone.guided(x, t, embeddings, step.p.guidance_scale)
        if layers:
            maps.append(recording.collect(x.shape[-2:]))
        z = scheduler.step(prediction, t, z, generator=own).prev_sample
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
