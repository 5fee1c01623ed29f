"""From the costs of single calls to a run: the parts of an iteration, memory by part, work and disk of every stage."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import ceil

from comat.estimate.calls import Calls
from comat.estimate.cost import Cost
from comat.estimate.judges import IMAGES
from comat.params import Params

SCORE = 1000
"""Bytes of an image's score with its answers, less where no question is asked."""


@dataclass(frozen=True)
class Counts:
    """What the parameters leave to the data: prompts to train on, prompts held out, real images; None if unknown."""

    train: int | None
    test: int | None
    images: int | None
    files: Mapping[str, int] = field(default_factory=dict)  # prompts of the files of benchmarks, by their source
    judged: Mapping[str, Mapping[str, int]] | None = None  # benchmark → how many of each: comat.estimate.judgements


def iteration(p: Params, c: Calls) -> dict[str, Cost]:
    """Operations of one iteration by part (Algorithm 1). Mixed latents start at the mean of their timesteps."""
    prompts = p.global_batch if p.generates else 0
    real = p.image_batch if p.concept_activation else 0
    steps = p.sampling_steps * (p.mixed_latent_t1 + p.mixed_latent_t2) / 2000
    maps = min(p.attribute_steps, p.grad_steps) if p.grounds_generated else 0
    images = bool(p.concept_activation or p.lambda_adv)
    plain = (prompts * (p.grad_steps - maps) + real * min(p.grad_steps, steps)) * images
    masks = prompts * p.grounds_generated
    parts = {
        "rollout": c.denoise * (prompts * p.sampling_steps + real * steps),
        "images: decoder, captioner, segmenter": c.image * (prompts + real) + c.segment * masks,
        "replay": c.replay * plain + c.replay_maps * (prompts * maps),
        "discriminator": c.adversary * prompts + c.discriminate * (2 * prompts),
    }
    if p.noises_real:
        seen = (c.decode + c.segment) * (p.image_batch * p.grounds_real)
        parts["noised real images: denoiser, segmenter"] = c.noised * p.image_batch + seen
    return parts


def guard(p: Params, c: Calls) -> float:
    """Operations of the guard's looks at its prompts, one at the end among them, if patience never ends the run."""
    own = p.train.guard
    if not own.every:
        return 0.0
    looks = ceil(p.train_steps / own.every) + 1
    image = c.denoise.flops * p.sampling_steps + c.decode.flops + c.guard.flops
    return looks * own.prompts * image


def apart(p: Params, c: Calls) -> float:
    """Operations of the looks at each term's own gradient: each is replayed once more, alone."""
    if not p.train.gradients_every:
        return 0.0
    real = p.image_batch if p.concept_activation else 0
    steps = p.sampling_steps * (p.mixed_latent_t1 + p.mixed_latent_t2) / 2000
    prompts = p.global_batch if p.generates else 0
    replayed = c.replay * p.grad_steps
    terms = (
        (c.image + replayed) * (prompts * p.concept_activation),
        c.image * real + c.replay * (real * min(p.grad_steps, steps)),
        (c.adversary + replayed) * (prompts * bool(p.lambda_adv)),
        c.replay_maps * (prompts * min(p.attribute_steps, p.grad_steps) * p.grounds_generated),
        c.noised * (p.image_batch * ((p.denoising_weight > 0) + p.grounds_real)),
    )
    return ceil(p.train_steps / p.train.gradients_every) * sum(term.flops for term in terms)


def work(p: Params, c: Calls, n: Counts) -> dict[str, float | None]:
    """Operations of every stage that computes; None where the data's size is not known yet."""
    samples = _times(_samples(p, n), c.denoise.flops * p.sampling_steps + c.decode.flops)
    drawn = c.denoise_native.flops * p.sampling_steps + c.decode_native.flops + c.encode.flops
    sample = c.denoise.flops * p.sampling_steps
    return {
        "prompt_embeddings": _times(_texts(p, n), c.read.flops),
        "warmup_images": _times(warmup_images(p, n), drawn),
        "warmup": p.warmup.steps * p.warmup.batch_size * c.warmup.flops,
        "reference_latents": _times(_used(p.reference_latents.count, n.train), sample),
        "image_latents": _times(_used(p.image_latents.count, n.images), c.encode.flops),
        "base_samples": samples,
        "train": p.train_steps * sum(part.flops for part in iteration(p, c).values()) + guard(p, c) + apart(p, c),
        "samples": samples,
        "evaluate": None if n.judged is None else sum(judge.work(n.judged[name]) for name, judge in c.judges.items()),
    }


def disk(p: Params, c: Calls, n: Counts) -> dict[str, float | None]:
    """Bytes that every stage leaves; images are taken as uncompressed."""
    samples = _times(_samples(p, n), 3 * p.resolution**2)
    kept = p.train_steps // p.train.keep_every if p.train.keep_every else 0
    return {
        "prompt_embeddings": _times(_texts(p, n), c.embedding),
        "warmup_images": _times(warmup_images(p, n), c.latent),
        "warmup": 4 * c.denoiser_weights * bool(p.warmup.steps),  # without any the base is passed through
        "reference_latents": _times(_used(p.reference_latents.count, n.train), c.latent),
        "image_latents": _times(_used(p.image_latents.count, n.images), c.latent),
        "base_samples": samples,
        "train": 4 * (sum(c.trained.values()) + kept * c.trained.get("LoRA", 0)),
        "samples": samples,
        "evaluate": _times(None if n.judged is None else sum(own[IMAGES] for own in n.judged.values()), SCORE),
    }


def scratch(p: Params, c: Calls, n: Counts) -> dict[str, float | None]:
    """Bytes in every stage's working folder, at most: its outputs before they are put in place, and saved states.

    A state is written whole before the one before it goes.
    """
    found = disk(p, c, n)
    best = 4 * c.trained.get("LoRA", 0) * bool(p.train.guard.every)  # the guard's
    states = {"warmup": 2 * warmup_state(p, c), "train": 2 * (12 * sum(c.trained.values()) + best)}
    return {stage: None if size is None else size + states.get(stage, 0) for stage, size in found.items()}


def warmup_state(p: Params, c: Calls) -> int:
    """Bytes of the warm-up's saved state: the denoiser, and both moments of what learns, in float32."""
    learns = c.warmup_lora if p.warmup.lora_rank else c.denoiser_weights
    return (4 * (c.denoiser_weights + c.warmup_lora) + 8 * learns) * bool(p.warmup.steps)


def _texts(p: Params, n: Counts) -> int | None:
    """Prompts and captions whose embeddings are stored, without those of the files of benchmarks; none is one too."""
    if not p.prompt_embeddings.store:
        return 0
    images = _used(p.image_latents.count, n.images) if p.image_batch else 0
    known = [count for count in (n.train, n.test, images) if count is not None]
    return 1 + sum(known) if len(known) == 3 else None


def warmup_images(p: Params, n: Counts) -> int:
    """Images of the base model that the warm-up learns from."""
    count = p.warmup_images.count if p.warmup.steps else 0
    return count if n.train is None else min(count, n.train)


def _samples(p: Params, n: Counts) -> int | None:
    """Images of each model."""
    prompts = _used(p.samples.prompts, n.test)
    if prompts is None:
        return None
    files = sum(count * p.samples.seeds_of(source) for source, count in n.files.items())
    return prompts * p.samples.seeds_of("held_out") + files


def _used(asked: int, there: int | None) -> int | None:
    """How many are used of those that are there; `asked` 0 takes all."""
    if there is None:
        return asked or None
    return min(asked or there, there)


def _times(count: int | None, each: float) -> float | None:
    return None if count is None else count * each
