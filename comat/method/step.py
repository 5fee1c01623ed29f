"""Algorithm 1: one loss computation for the online model, and the discriminator's beside it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from comat.captioners import Captioner
from comat.captioners.load import Mixture, teachers_of
from comat.diffusion.attention import AttentionMaps
from comat.diffusion.backbones import Backbone
from comat.diffusion.lora import merged
from comat.diffusion.rollout import Rollout, rollout
from comat.diffusion.schedulers import Sampler
from comat.discriminators import Discriminator
from comat.method.attribute_concentration import Entity, attribute_concentration_loss, with_masks
from comat.method.batch import Batch
from comat.method.concept_activation import captioners_loss, jitter_crop
from comat.method.denoising import Noised, denoise, noised
from comat.method.fidelity_preservation import discriminator_loss, generator_loss
from comat.method.mixed_latents import draw_start
from comat.method.replay import MapLoss, MapTerm, leaf_gradients, replay, spans
from comat.params import StepParams, TrainParams
from comat.randomness import generator, noise
from comat.segmenters import Segmenter

TERMS = ("i2t", "i2t_real", "attribute", "adversarial")
"""The captioner on generated and on real images (Eq. 2), attribute concentration (Eq. 4, 5), the generator's side of
Eq. 3 with its weight lambda."""
DENOISING = "denoising"
"""A term beside those of Eq. 6: Eq. 1 on real images, with its weight."""
MASKS, EMPTY_MASKS = "masks", "masks_empty"
"""Entities that the segmenter was asked for, and those of them that it found nothing of."""


@dataclass(frozen=True)
class ImageGradient:
    """dL/dz0 of a rollout times the loss scale (or None, where no loss reads the image), the values of the losses (one
    for each chunk), and the masks.
    """

    z0: Tensor | None
    i2t: Sequence[Tensor] = ()
    parts: Sequence[dict[str, Tensor]] = ()  # of several captioners: the loss of each, before its weight
    adversarial: Sequence[Tensor] = ()
    masks: Sequence[Tensor] = ()


class Step:
    """Computes Eq. 6 on a batch and leaves its gradient in the LoRA weights, and Eq. 3's in the discriminator.

    A part that is switched off is neither computed nor needed: `captioner`, `segmenter` and `discriminator` may be
    None then, and no image is generated that no loss reads. Gradients come out times `loss_scale`, values do not. Of
    `train` it takes how many samples go through the models at once and what is checkpointed, neither of which changes a
    result.
    """

    def __init__(
        self,
        params: StepParams,
        train: TrainParams,
        backbone: Backbone,
        captioner: Captioner | Mixture | None,
        segmenter: Segmenter | None,
        discriminator: Discriminator | None,
    ) -> None:
        self.loss_scale = 1.0
        self.empty: list[Tensor] = []  # of the entities of each image of this iteration: 1 where they have no mask
        self.p, self.backbone, self.chunk = params, backbone, train.device_batch
        self.captioner = captioner if params.concept_activation else None
        self.several = [one.name for one in teachers_of(self.captioner) if one.name] if self.captioner else []
        self.segmenter = segmenter if params.grounds_generated else None
        self.real_segmenter = segmenter if params.grounds_real else None
        self.discriminator = discriminator if params.lambda_adv else None
        self.layers = backbone.chosen_layers(params.attribute_layers)
        self.terms = (*TERMS, DENOISING) if params.denoising_weight else TERMS
        # By diffusers, where gradients are on: never in a rollout.
        if train.gradient_checkpointing != "none":
            backbone.checkpoint_decoder()
        if train.gradient_checkpointing == "all":
            backbone.denoiser.enable_gradient_checkpointing()

    def __call__(self, batch: Batch, *, look: Callable[[str], None] | None = None) -> dict[str, float]:
        """Accumulate all gradients; returns the values of the losses. Over the shares of a batch both add up.

        `look` is called with the name of each term while the LoRA weights hold the gradient of that term alone, times
        the loss scale; what it does to them is undone. It costs the replay of each term once more, and no memory of
        the device: what the weights held waits on the host.
        """
        steps, map_steps = self.draw_steps(batch.iteration)
        self.empty = []
        generated = denoised = None
        if self.p.generates:
            with merged(self.backbone.denoiser):
                generated = self.generate(batch, steps) if batch.prompts else None
                denoised = self.denoise_real(batch) if batch.real and self.captioner else None
        samples = batch.size + (batch.size_real if self.captioner else 0)
        image = real = ImageGradient(None)
        attribute: list[Tensor] = []
        discriminator: list[Tensor] = []
        if generated:
            image = self.image_gradient(generated.z0, batch.prompts, batch, samples, batch.iteration)
            attribute = self.replay(generated, image, self.map_term(batch, image.masks, map_steps))
            discriminator = self.discriminate(generated.z0.detach(), batch)
        if denoised:
            real = self.image_gradient(denoised.z0, batch.real.captions, None, samples, batch.iteration)
            self.replay(denoised, real)
        photos = self.noise_real(batch) if batch.real and self.p.noises_real else None
        denoising: list[Tensor] = []
        if photos:
            denoising, grounded = self.denoise_noised(photos, batch)
            attribute += grounded
        if look:
            self._apart(look, batch, generated, denoised, photos, image.masks, map_steps, samples)
        i2t, adversarial = total(image.i2t) + total(real.i2t), total(image.adversarial)
        eq6 = i2t + total(attribute) + self.p.lambda_adv * adversarial
        return {
            "loss": eq6 + self.p.denoising_weight * total(denoising),
            "i2t": i2t,
            **{f"i2t_{name}": total([own[name] for own in (*image.parts, *real.parts)]) for name in self.several},
            "attribute": total(attribute),
            "adversarial": adversarial,
            "discriminator": total(discriminator),
            **({DENOISING: total(denoising)} if self.p.denoising_weight else {}),
            MASKS: float(sum(map(len, self.empty))),
            EMPTY_MASKS: total([own.sum() for own in self.empty]),
        }

    def _apart(
        self,
        look: Callable[[str], None],
        batch: Batch,
        generated: Rollout | None,
        denoised: Rollout | None,
        photos: Noised | None,
        masks: Sequence[Tensor],
        map_steps: Sequence[int],
        samples: int,
    ) -> None:
        """Show each term's own gradient in the LoRA weights: they add up to the gradient, which is there again then."""
        weights = [weight for weight in self.backbone.denoiser.parameters() if weight.requires_grad]
        before = [None if weight.grad is None else weight.grad.cpu() for weight in weights]
        for term in self.terms:
            for weight in weights:
                weight.grad = None
            if term == "i2t_real" and denoised:
                prompts = batch.real.captions
                self.replay(denoised, self.image_gradient(denoised.z0, prompts, None, samples, batch.iteration))
            if term == "attribute" and generated:
                self.replay(generated, ImageGradient(None), self.map_term(batch, masks, map_steps))
            if term in ("i2t", "adversarial") and generated:
                of = generated.z0, batch.prompts, batch, samples, batch.iteration
                self.replay(generated, self.image_gradient(*of, only=term))
            if term in ("attribute", DENOISING) and photos:
                self.denoise_noised(photos, batch, only=term)
            look(term)
        for weight, gradient in zip(weights, before, strict=True):
            weight.grad = None if gradient is None else gradient.to(weight.device)

    def generator(self, purpose: str, *index: int) -> torch.Generator:
        return generator(self.p.seed, purpose, *index)

    def draw_steps(self, iteration: int) -> tuple[list[int], list[int]]:
        """K of the T steps, uniformly placed with a random phase, and r of these K without replacement."""
        rng = self.generator("steps", iteration)
        steps = place_steps(0, self.p.sampling_steps, self.p.grad_steps, rng)
        picked = torch.randperm(len(steps), generator=rng)[: self.p.attribute_steps].tolist()
        return steps, sorted(steps[i] for i in picked) if self.segmenter else []

    def draw_real_steps(
        self, iteration: int, rows: Sequence[int], sampler: Sampler
    ) -> tuple[list[int], list[list[int]]]:
        """For each real image of `rows` the step that it starts from, and its K steps (fewer where fewer are left)."""
        starts, steps = [], []
        for row in rows:
            rng = self.generator("tau", iteration, row)
            starts.append(draw_start(sampler, self.p.mixed_latent_t1, self.p.mixed_latent_t2, rng))
            steps.append(place_steps(starts[-1], self.p.sampling_steps, self.p.grad_steps, rng))
        return starts, steps

    def generate(self, batch: Batch, steps: Sequence[int]) -> Rollout:
        """From pure noise: GenerateImage(eps_theta, x_T, P)."""
        sampler = self._sampler()
        rows = range(batch.first, batch.first + len(batch.prompts))
        own = [self.generator("noise", batch.iteration, row) for row in rows]
        z = noise(self.backbone.latent_shape(self.p.resolution), own).to(self.backbone.device)
        return self._rollout(sampler, sampler.first(z), batch.prompts, own, (), [steps] * len(rows))

    def denoise_real(self, batch: Batch) -> Rollout:
        """From noisy real images: GenerateImage(eps_theta, AddNoise(I_g, xi, tau), P_g), each with its own tau."""
        sampler = self._sampler()
        rows = range(batch.first_real, batch.first_real + len(batch.real))
        own = [self.generator("real noise", batch.iteration, row) for row in rows]
        latents = batch.real.latents.to(self.backbone.device)
        xi = noise(latents.shape[1:], own).to(self.backbone.device)
        starts, steps = self.draw_real_steps(batch.iteration, rows, sampler)
        z = sampler.noisy(latents, xi, starts)
        return self._rollout(sampler, z, batch.real.captions, own, starts, steps)

    def noise_real(self, batch: Batch) -> Noised:
        """The real images with a noise level each, and the loss on their attention maps where it is theirs."""
        rows = range(batch.first_real, batch.first_real + len(batch.real))
        own = [self.generator("denoising", batch.iteration, row) for row in rows]
        latents = batch.real.latents.to(self.backbone.device)
        maps = None
        if self.real_segmenter:
            entities, masks = with_masks(batch.real.entities, self.find_real(latents, batch.real.entities))
            maps = MapTerm((), self.layers, self.map_loss(entities, masks, batch.size_real))
        return noised(self.backbone, latents, self.backbone.encode_prompts(batch.real.captions), own, maps)

    @torch.no_grad()
    def find_real(self, latents: Tensor, entities: Sequence[Sequence[Entity]]) -> list[Tensor]:
        """The masks of the entities of real images, given as latents (G, C, h, w)."""
        assert self.real_segmenter, "no loss asks for the masks of real images"
        masks: list[Tensor] = []
        for span in spans(len(latents), self.chunk):
            masks += self.find(self.real_segmenter, self.backbone.decode(latents[span]), entities[span])
        return masks

    def find(self, segmenter: Segmenter, images: Tensor, entities: Sequence[Sequence[Entity]]) -> list[Tensor]:
        """The masks of the entities of (B, 3, H, W) images.

        An image that is not finite makes this step's count of empty masks no number, so that it is skipped as any
        other that overflows; the segmenter, which would call its own weights damaged, is shown numbers.
        """
        nouns = [[entity.noun for entity in group] for group in entities]
        masks = segmenter.masks(images.nan_to_num(), nouns)
        for image, own in zip(images, masks, strict=True):
            self.empty.append((~own.flatten(1).any(1)).float() + 0 * image.float().sum())
        return masks

    def denoise_noised(
        self, photos: Noised, batch: Batch, *, only: str | None = None
    ) -> tuple[list[Tensor], list[Tensor]]:
        """The gradients of Eq. 1 on real images and of the loss on their maps; returns the values of both.

        Of one alone, "denoising" or "attribute", where `only` names it.
        """
        weight = self.p.denoising_weight if only in (None, DENOISING) else 0.0
        asked = photos if only in (None, "attribute") else replace(photos, maps=None)
        return denoise(
            self.backbone, asked, weight, count=batch.size_real, chunk=self.chunk, loss_scale=self.loss_scale
        )

    def _sampler(self) -> Sampler:
        size = self.backbone.latent_shape(self.p.resolution)[1:]
        return self.backbone.sampler(self.p.scheduler, self.p.sampling_steps, size)

    def _rollout(
        self,
        sampler: Sampler,
        z: Tensor,
        prompts: Sequence[str],
        own: Sequence[torch.Generator],
        starts: Sequence[int],
        steps: Sequence[Sequence[int]],
    ) -> Rollout:
        embeddings, scale = self.backbone.encode_prompts(prompts), self.p.guidance_scale
        return rollout(self.backbone, sampler, z, embeddings, scale, own, starts=starts, record=steps, chunk=self.chunk)

    def image_gradient(
        self,
        z0: Tensor,
        prompts: Sequence[str],
        batch: Batch | None,
        samples: int,
        iteration: int,
        *,
        only: str | None = None,
    ) -> ImageGradient:
        """dL/dz0 of L_i2t and, for generated images (`batch` given), lambda L_adv; and the masks of the entities.

        `samples` is the number of images that L_i2t is averaged over, generated and real. `only` one of the losses,
        "i2t" or "adversarial", is computed where it is named.
        """
        captioner = self.captioner if only in (None, "i2t") else None
        discriminator = self.discriminator if batch and only in (None, "adversarial") else None
        segmenter = self.segmenter if batch and only is None else None
        gradient = torch.zeros_like(z0)
        i2ts: list[Tensor] = []
        parts: list[dict[str, Tensor]] = []
        adversarials: list[Tensor] = []
        masks: list[Tensor] = []
        for at in range(0, len(z0), self.chunk):
            span = slice(at, at + self.chunk)
            z = z0[span].detach().requires_grad_()
            loss = z.new_zeros(())
            if captioner or segmenter:
                with torch.set_grad_enabled(captioner is not None):
                    images = self.backbone.decode(z)
            if captioner:
                rng = self.generator("crop" if batch else "real crop", iteration)
                seen = jitter_crop(images, rng) if self.p.crop_jitter else images
                losses, own = captioners_loss(captioner, seen, prompts[span], self.p.caption_reduction)
                i2t = losses.sum() / samples
                loss = loss + i2t
                i2ts.append(i2t.detach())
                parts.append({name: value.sum() / samples for name, value in own.items()})
            if batch and discriminator:
                adversarial = generator_loss(discriminator(z)).sum() / batch.size
                loss = loss + self.p.lambda_adv * adversarial
                adversarials.append(adversarial.detach())
            if batch and segmenter:
                masks += self.find(segmenter, images.detach(), batch.entities[span])
            if loss.requires_grad:
                gradient[span] = torch.autograd.grad(self.loss_scale * loss, z)[0]
        read = captioner or discriminator
        return ImageGradient(gradient if read else None, i2ts, parts, adversarials, masks)

    def map_term(self, batch: Batch, masks: Sequence[Tensor], steps: Sequence[int]) -> MapTerm | None:
        """L_pos + L_neg of the batch, sum or mean over `steps`; None where there are none."""
        count = batch.size * (len(steps) if self.p.attribute_reduction == "mean" else 1)
        return MapTerm(steps, self.layers, self.map_loss(batch.entities, masks, count)) if steps else None

    def map_loss(self, entities: Sequence[Sequence[Entity]], masks: Sequence[Tensor], count: int) -> MapLoss:
        """L_pos + L_neg of images with these entities, divided by `count`."""

        def loss(maps: AttentionMaps, span: slice) -> Tensor:
            squared, reduction = self.p.attribute_loss == "tokencompose", self.p.attribute_reduction
            value = attribute_concentration_loss(
                maps, entities[span], masks[span], self.p.alpha, self.p.beta, squared, reduction
            )
            return value / count

        return loss

    def replay(self, generated: Rollout, image: ImageGradient, maps: MapTerm | None = None) -> list[Tensor]:
        """The gradients of the image's losses and of `maps` into the LoRA weights; returns the values of `maps`."""
        gradients = {} if image.z0 is None else leaf_gradients(generated, image.z0)
        return replay(
            self.backbone,
            generated,
            gradients,
            self.p.guidance_scale,
            chunk=self.chunk,
            maps=maps,
            loss_scale=self.loss_scale,
        )

    def discriminate(self, fake: Tensor, batch: Batch) -> list[Tensor]:
        """Eq. 3 for the discriminator, on latents that carry no graph."""
        if self.discriminator is None:
            return []
        assert batch.reference is not None, "a batch without reference latents for the discriminator"
        real, values = batch.reference.to(fake.device), []
        for at in range(0, len(fake), self.chunk):
            span = slice(at, at + self.chunk)
            logits = self.discriminator(torch.cat([real[span], fake[span]])).chunk(2)
            loss = discriminator_loss(*logits).sum() / batch.size
            (self.loss_scale * loss).backward()
            values.append(loss.detach())
        return values


def total(values: Sequence[Tensor]) -> float:
    """The sum of 0-dimensional tensors, read at once: the host that reads each as it comes waits for the device."""
    return sum(torch.stack(list(values)).tolist()) if values else 0.0


def place_steps(start: int, stop: int, count: int, rng: torch.Generator) -> list[int]:
    """At most `count` steps of [start, stop), equally far apart, with a random phase."""
    count = min(count, stop - start)
    gap = (stop - start) // count
    phase = int(torch.randint(stop - start - gap * (count - 1), (), generator=rng))
    return [start + phase + gap * i for i in range(count)]
