"""From the costs of single calls to a run: the parts of an iteration, memory by part, work and disk of every stage."""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil

from comat.estimate.calls import Calls
from comat.estimate.cost import Cost
from comat.params import Params

ADAM = 16
"""Bytes of a trained number in float32: weight, gradient and AdamW's two moments."""


@dataclass(frozen=True)
class Counts:
    """What the parameters leave to the data: prompts to train on, prompts held out, real images; None if unknown."""

    train: int | None
    test: int | None
    images: int | None


def iteration(p: Params, c: Calls) -> dict[str, Cost]:
    """Operations of one iteration by part (Algorithm 1). Mixed latents start at the mean of their timesteps."""
    real = p.image_batch if p.concept_activation else 0
    steps = p.sampling_steps * (p.mixed_latent_t1 + p.mixed_latent_t2) / 2000
    maps = min(p.attribute_steps, p.grad_steps) if p.attribute_concentration else 0
    images = bool(p.concept_activation or p.lambda_adv)
    plain = (p.global_batch * (p.grad_steps - maps) + real * min(p.grad_steps, steps)) * images
    return {
        "rollout": c.denoise * (p.global_batch * p.sampling_steps + real * steps),
        "images: decoder, captioner, segmenter": c.image * (p.global_batch + real) + c.segment * p.global_batch,
        "replay": c.replay * plain + c.replay_maps * (p.global_batch * maps),
        "discriminator": c.adversary * p.global_batch + c.discriminate * (2 * p.global_batch),
    }


def guard(p: Params, c: Calls) -> float:
    """Operations of the guard's looks at its prompts, one at the end among them, if patience never ends the run."""
    own = p.train.guard
    if not own.every:
        return 0.0
    looks = ceil(p.train_steps / own.every) + 1
    image = c.denoise.flops * p.sampling_steps + c.decode.flops + c.guard.flops
    return looks * own.prompts * image


def memory(p: Params, c: Calls) -> dict[str, float]:
    """Bytes on the device while `train` runs, by part; activations are those of the phase that keeps the most."""
    chunk = min(p.train.device_batch, max(p.global_batch, p.image_batch))
    replayed = c.replay_maps if p.attribute_concentration else c.replay
    phases = (replayed.kept, c.image.kept + c.adversary.kept, 2 * c.discriminate.kept)
    trained = {f"{name}: weights, gradients, AdamW": ADAM * count for name, count in c.trained.items()}
    copies = {"copies of merged weights": c.merged}
    return c.weights | trained | copies | {f"activations of {chunk} samples": chunk * max(phases)}


def warmup_memory(p: Params, c: Calls) -> float:
    """Bytes on the device while `warmup` runs, in float32 whatever the precision of the parameters."""
    kept = c.warmup.kept * (1 if p.precision == "fp32" else 2)
    return (ADAM * c.unet + p.warmup.batch_size * kept) * bool(p.warmup.steps)


def work(p: Params, c: Calls, n: Counts) -> dict[str, float | None]:
    """Operations of every stage that computes; None where the data's size is not known yet."""
    samples = _times(_samples(p, n), c.denoise.flops * p.sampling_steps + c.decode.flops)
    drawn = c.denoise_native.flops * p.sampling_steps + c.decode_native.flops + c.encode.flops
    sample = c.denoise.flops * p.sampling_steps
    return {
        "warmup_images": _times(_warmup_images(p, n), drawn),
        "warmup": p.warmup.steps * p.warmup.batch_size * c.warmup.flops,
        "reference_latents": _times(_used(p.reference_latents.count, n.train), sample),
        "image_latents": _times(_used(p.image_latents.count, n.images), c.encode.flops),
        "base_samples": samples,
        "train": p.train_steps * sum(part.flops for part in iteration(p, c).values()) + guard(p, c),
        "samples": samples,
    }


def disk(p: Params, c: Calls, n: Counts) -> dict[str, float | None]:
    """Bytes that every stage leaves; images are taken as uncompressed."""
    samples = _times(_samples(p, n), 3 * p.resolution**2)
    return {
        "warmup_images": _times(_warmup_images(p, n), c.latent),
        "warmup": 4 * c.unet,
        "reference_latents": _times(_used(p.reference_latents.count, n.train), c.latent),
        "image_latents": _times(_used(p.image_latents.count, n.images), c.latent),
        "base_samples": samples,
        "train": 4 * sum(c.trained.values()),
        "samples": samples,
    }


def _warmup_images(p: Params, n: Counts) -> int:
    count = p.warmup_images.count if p.warmup.steps else 0
    return count if n.train is None else min(count, n.train)


def _samples(p: Params, n: Counts) -> int | None:
    """Images of each model, without those of prompts from the files of benchmarks."""
    prompts = _used(p.samples.prompts, n.test)
    return prompts and prompts * p.samples.seeds


def _used(asked: int, there: int | None) -> int | None:
    """How many are used of those that are there; `asked` 0 takes all."""
    if there is None:
        return asked or None
    return min(asked or there, there)


def _times(count: int | None, each: float) -> float | None:
    return None if count is None else count * each
