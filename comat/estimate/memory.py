"""How many bytes each stage holds at once, part by part: on the device, and in the host's memory."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from rich.filesize import decimal

from comat.errors import HELPS
from comat.estimate.calls import ENCODERS, Calls
from comat.estimate.plan import Counts, warmup_images
from comat.params import Params

ADAM = 16
"""Bytes of a trained number in float32: weight, gradient and AdamW's two moments."""
CHUNK = 4
"""Images that the segmenters take at once, at most."""


@dataclass(frozen=True)
class Need:
    """What one stage holds at once on the device, by part, and what may be changed where that is too much."""

    stage: str
    parts: dict[str, float]

    @property
    def total(self) -> float:
        return sum(self.parts.values())

    def remedy(self, memory: int) -> str:
        """What to do where the stage is to fit so many bytes: no batch is small enough for too many weights."""
        moves = {part for part in self.parts if part.startswith("activations") or part.endswith("AdamW")}
        frozen = sum(size for part, size in self.parts.items() if part not in moves)
        if frozen > memory:
            return f"take a device of more memory, for frozen weights alone are {decimal(int(frozen))}"
        return f"lower {HELPS.get(f'stages.{self.stage}', '')}"


def needs(p: Params, c: Calls, judged: Mapping[str, Mapping[str, int]] | None = None) -> list[Need]:
    """Every stage that loads a model, in the pipeline's order. `judged`: as in `Counts`, if it is known."""
    base = {name: float(size) for name, size in held(p, c).items() if name in (*denoisers(c), "autoencoder", ENCODERS)}
    encoders = {ENCODERS: float(c.weights[ENCODERS])}
    drawn = max(c.denoise_native.peak, c.decode_native.peak, c.encode.peak)
    shown = max(c.denoise.peak, c.decode.peak)
    own = {
        "prompt_embeddings": encoders | _activations(1, c.read.peak) if p.prompt_embeddings.store else {},
        "warmup_images": base | _activations(p.warmup_images.batch_size, drawn) if p.warmup.steps else {},
        "warmup": warmup(p, c),
        "reference_latents": base | _activations(p.reference_latents.batch_size, c.denoise.peak),
        "image_latents": base | _activations(p.image_latents.batch_size, c.encode.peak)
        if p.image_latents.images is not None
        else {},
        "base_samples": base | _activations(p.samples.batch_size, shown),
        "train": memory(p, c),
        "samples": base | {"LoRA": 4.0 * c.trained["LoRA"]} | _activations(p.samples.batch_size, shown),
        "evaluate": judging(p, c, judged or {}),
    }
    return [Need(stage, parts) for stage, parts in own.items() if parts]


def held(p: Params, c: Calls) -> dict[str, int]:
    """Bytes of frozen weights while `train` runs, by part: without the text encoders where their work is done."""
    return {name: size for name, size in c.weights.items() if name != ENCODERS or not p.prompt_embeddings.store}


def denoisers(c: Calls) -> tuple[str, ...]:
    """The name of the denoiser among the weights, which stands first."""
    return tuple(c.weights)[:1]


def memory(p: Params, c: Calls) -> dict[str, float]:
    """Bytes on the device while `train` runs, by part; activations are those of the phase that holds the most."""
    chunk = min(p.train.device_batch, max(p.global_batch, p.image_batch))
    trained = {f"{name}: weights, gradients, AdamW": float(ADAM * count) for name, count in c.trained.items()}
    phase, most = max(phases(p, c, chunk).items(), key=lambda one: one[1])
    copies = {"copies of merged weights": float(c.merged)}
    return held(p, c) | trained | copies | {f"activations of {chunk} samples: {phase}": most}


def phases(p: Params, c: Calls, chunk: int) -> dict[str, float]:
    """Bytes of activations of `chunk` samples in every phase of an iteration (Algorithm 1).

    The segmenter looks at the images while their graphs wait for the backward pass.
    """
    plain = min(p.train.device_batch, p.grad_steps * max(p.global_batch, p.image_batch))  # of several steps together
    mapped = chunk * c.replay_maps.peak if p.grounds_generated else 0
    held = c.image.kept + c.adversary.kept
    runs = max(c.image.peak - c.image.kept, c.adversary.peak - c.adversary.kept)
    segment = min(chunk, CHUNK) * c.segment.peak
    return {
        "rollout": chunk * c.denoise.peak,
        "images": chunk * held + max(chunk * runs, segment * p.grounds_generated),
        "replay": max(plain * c.replay.peak, mapped),
        "discriminator": 2 * chunk * c.discriminate.peak,
        "noised real images": max(chunk * c.noised.peak, max(chunk * c.decode.peak, segment) * p.grounds_real),
        "guard": chunk * max(c.decode.peak, c.guard.peak) * bool(p.train.guard.every),
    }


def warmup(p: Params, c: Calls) -> dict[str, float]:
    """Bytes on the device while `warmup` runs, by part, in float32 whatever the precision of the parameters."""
    if not p.warmup.steps:
        return {}
    twice = 1 if p.precision == "fp32" else 2  # `warmup` is measured in the precision of the parameters
    learns = {"LoRA: weights, gradients, AdamW": float(ADAM * c.warmup_lora)} if p.warmup.lora_rank else {}
    each = 4 if p.warmup.lora_rank else ADAM
    return {
        "denoiser" if p.warmup.lora_rank else "denoiser: weights, gradients, AdamW": float(each * c.unet),
        "autoencoder and text encoders": 4.0 * c.others,
        **learns,
        **_activations(p.warmup.batch_size, twice * c.warmup.peak),
    }


def judging(p: Params, c: Calls, judged: Mapping[str, Mapping[str, int]]) -> dict[str, float]:
    """Bytes on the device while `evaluate` runs, by part, of the benchmark that holds the most: they take turns."""
    batch = p.evaluate.batch_size
    every = [
        {f"{name}: {role}": float(held) for role, held in judge.weights.items()}
        | _activations(batch, judge.activations(batch, judged.get(name, {})) / batch)
        for name, judge in c.judges.items()
    ]
    return max(every, key=lambda parts: sum(parts.values()), default={})


def host(p: Params, c: Calls, n: Counts) -> float:
    """Bytes of the host's memory for what the text encoders say of `warmup`'s prompts, besides a GPU's.

    It is the most that a stage needs there: states are written from the device and read as pages of their file.
    """
    twice = 1 if p.precision == "fp32" else 2  # as in `warmup`
    return float(twice * c.embedding * warmup_images(p, n))


def _activations(batch: int, each: float) -> dict[str, float]:
    return {f"activations of {batch} samples": batch * each}
