"""How many bytes each stage holds at once, part by part: on the device, and in the host's memory."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from rich.filesize import decimal

from comat.estimate.calls import AUTOENCODER, ENCODERS, Calls
from comat.estimate.plan import Counts, warmup_images
from comat.method.step import TERMS
from comat.params import Params
from comat.segmenters import CHUNK
from comat.training.guard import ORIGINALS

ADAM = 16
"""Bytes of a trained number in float32: weight, gradient and AdamW's two moments."""
ACTIVATIONS, TRAINED, MERGED = "activations", "weights, gradients, AdamW", "copies of merged weights"
PLAIN = ("rollout", "guard")
"""Phases of an iteration without gradients."""
OTHERS = ("captioner", "segmenter", "discriminator", "guard")
"""Frozen models of `train` that the parameters name beside the base."""


@dataclass(frozen=True)
class Need:
    """What one stage holds at once on the device, by part, and what may be changed where that is too much."""

    stage: str
    parts: dict[str, float]
    changes: dict[str, float] = field(default_factory=dict)  # a change of parameters → bytes that it takes away at most
    least: float = 0.0  # bytes that stay whatever is changed

    @property
    def total(self) -> float:
        return sum(self.parts.values())

    def remedy(self, memory: int) -> str:
        """What to do where the stage is to fit so many bytes, from the change that brings most."""
        if not self.changes:
            return "take a device of more memory: nothing is left to change"
        if self.least > memory:
            return f"take a device of more memory: {decimal(int(self.least))} stay whatever is changed"
        told = sorted(self.changes.items(), key=lambda change: -change[1])
        return " or ".join(f"{change} (at most {decimal(int(less))} less)" for change, less in told)


def needs(p: Params, c: Calls, judged: Mapping[str, Mapping[str, int]] | None = None) -> list[Need]:
    """Every stage that loads a model, in the pipeline's order. `judged`: as in `Counts`, if it is known."""
    base = {name: float(size) for name, size in held(p, c).items() if name in (*denoisers(c), AUTOENCODER, ENCODERS)}
    encoders = {ENCODERS: float(c.weights[ENCODERS])}
    drawn = max(c.denoise_native.peak, c.decode_native.peak, c.encode.peak)
    shown = max(c.denoise.peak, c.decode.peak)
    own = {
        "prompt_embeddings": encoders | _activations(1, c.read.peak) if p.prompt_embeddings.store else {},
        "warmup_images": base | _activations(p.warmup_images.batch_size, drawn) if p.warmup.steps else {},
        "warmup": warmup(p, c),
        "reference_latents": {name: size for name, size in base.items() if name != AUTOENCODER}
        | _activations(p.reference_latents.batch_size, c.denoise.peak),
        "image_latents": {AUTOENCODER: base.get(AUTOENCODER, 0.0)}
        | _activations(p.image_latents.batch_size, c.encode.peak)
        if p.image_latents.images is not None
        else {},
        "base_samples": base | _activations(p.samples.batch_size, shown),
        "train": memory(p, c),
        "samples": base
        | {"LoRA": 4.0 * c.trained["LoRA"], MERGED: float(c.merged)}
        | _activations(p.samples.batch_size, shown),
        "evaluate": judging(p, c, judged or {}),
    }
    return [_need(stage, parts, p) for stage, parts in own.items() if parts]


def _need(stage: str, parts: dict[str, float], p: Params) -> Need:
    """With what `params.yaml` can still change of it: each by itself, none that is changed already."""
    active = sum(size for part, size in parts.items() if part.startswith(ACTIVATIONS))
    trained = sum(size for part, size in parts.items() if part.endswith(TRAINED) or part == "LoRA")
    stays = sum(parts.values()) - active - trained
    others = sum(size for part, size in parts.items() if part in OTHERS)
    changes: dict[str, float] = {}
    key, now = _batch(stage, p)
    phase = next((part.rpartition(": ")[2] for part in parts if part.startswith(ACTIVATIONS)), "")
    batch = samples_of(p, phase) if stage == "train" else now
    if batch > 1:
        changes[f"lower {key}, now {now}"] = active * (1 - 1 / batch)
    if stage == "warmup_images" and p.native_resolution > p.resolution:
        changes["lower native_resolution"] = active
    plain = any(part.startswith(ACTIVATIONS) and part.endswith(PLAIN) for part in parts)
    if stage == "train" and p.train.gradient_checkpointing != "all" and not plain:
        changes["set train.gradient_checkpointing to all"] = active
    if others:
        changes["choose smaller models beside the base"] = others
        stays -= others
    if stage in ("train", "samples") and p.lora_rank > 1:
        changes[f"lower lora_rank, now {p.lora_rank}"] = trained * (1 - 1 / p.lora_rank)
    if stage == "warmup" and p.warmup.lora_rank > 1:
        changes[f"lower warmup.lora_rank, now {p.warmup.lora_rank}"] = trained * (1 - 1 / p.warmup.lora_rank)
    elif stage == "warmup" and not p.warmup.lora_rank:
        changes["set warmup.lora_rank above 0"] = trained * (1 - 4 / ADAM)
        stays += trained * 4 / ADAM  # frozen then
    if stage != "warmup" and ENCODERS in parts and not p.prompt_embeddings.store:
        changes["set prompt_embeddings.store to true"] = parts[ENCODERS]
        stays -= parts[ENCODERS]
    if stage == "evaluate":
        changes["choose smaller judges"] = stays
        if p.precision == "fp32":
            changes["set precision to bf16, for vision-language models"] = sum(parts.values()) / 2
        stays = 0.0
    elif p.precision == "fp32" and stage != "warmup":  # which computes in float32 whatever the precision
        merged = parts.get(MERGED, 0.0)
        changes["set precision to bf16"] = merged + (sum(parts.values()) - merged - trained) / 2
        stays = (stays - merged) / 2
    return Need(stage, parts, changes, stays)


def _batch(stage: str, p: Params) -> tuple[str, int]:
    """The parameter that says how many samples a stage takes at once at most, and what it is."""
    if stage == "train":
        return "train.device_batch", p.train.device_batch
    section = "samples" if stage == "base_samples" else stage
    return f"{section}.batch_size", getattr(getattr(p, section), "batch_size", 1)


def held(p: Params, c: Calls) -> dict[str, int]:
    """Bytes of frozen weights while `train` runs, by part: without the text encoders where their work is done."""
    return {name: size for name, size in c.weights.items() if name != ENCODERS or not p.prompt_embeddings.store}


def denoisers(c: Calls) -> tuple[str, ...]:
    """The name of the denoiser among the weights, which stands first."""
    return tuple(c.weights)[:1]


def memory(p: Params, c: Calls) -> dict[str, float]:
    """Bytes on the device while `train` runs, by part; activations are those of the phase that holds the most."""
    chunk = chunk_of(p)
    trained = {f"{name}: {TRAINED}": float(ADAM * count) for name, count in c.trained.items()}
    phase, most = max(phases(p, c, chunk).items(), key=lambda one: one[1])
    copies = {MERGED: float(c.merged)}
    return held(p, c) | trained | copies | {f"{ACTIVATIONS} of {samples_of(p, phase)} samples: {phase}": most}


def chunk_of(p: Params) -> int:
    """Samples that `train` takes through the models at once."""
    return min(p.train.device_batch, max(p.global_batch, p.image_batch))


def looks_of(p: Params) -> int:
    """Prompts that the guard draws at once."""
    return min(p.train.device_batch, p.train.guard.prompts) if p.train.guard.every else 0


def judged_of(p: Params) -> int:
    """Images that the guard decodes and looks at at once: its own, or those of the original model."""
    originals = min(ORIGINALS, p.reference_latents.count or ORIGINALS)
    return min(p.train.device_batch, max(p.train.guard.prompts, originals)) if p.train.guard.every else 0


def samples_of(p: Params, phase: str) -> int:
    """Samples that a phase of `phases` takes at once."""
    return {"images of the guard": looks_of(p), "guard": judged_of(p)}.get(phase, chunk_of(p))


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
        "images of the guard": looks_of(p) * c.denoise.peak,
        "guard": judged_of(p) * max(c.decode.peak, c.guard.peak),
    }


def warmup(p: Params, c: Calls) -> dict[str, float]:
    """Bytes on the device while `warmup` runs, by part, in float32 whatever the precision of the parameters."""
    if not p.warmup.steps:
        return {}
    twice = 1 if p.precision == "fp32" else 2  # `warmup` is measured in the precision of the parameters
    learns = {f"LoRA: {TRAINED}": float(ADAM * c.warmup_lora)} if p.warmup.lora_rank else {}
    each = 4 if p.warmup.lora_rank else ADAM
    return {
        "denoiser" if p.warmup.lora_rank else f"denoiser: {TRAINED}": float(each * c.denoiser_weights),
        ENCODERS: 4.0 * c.text_weights,
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


def host(p: Params, c: Calls, n: Counts) -> dict[str, float]:
    """Bytes of the host's memory that grow with the parameters, besides a GPU's, by stage.

    In `warmup` it is what the text encoders say of its prompts; in `train` the gradients of the LoRA weights while
    those of each term are looked at: one of every term, and that of all. States are written from the device and read
    as pages of their file. Models pass through it while they are loaded, one at a time, which is not counted.
    """
    twice = 1 if p.precision == "fp32" else 2  # as in `warmup`
    looks = len(TERMS) + bool(p.denoising_weight) + 1 if p.train.gradients_every else 0
    return {
        "warmup": float(twice * c.embedding * warmup_images(p, n)),
        "train": 4.0 * looks * c.trained.get("LoRA", 0),
    }


def _activations(batch: int, each: float) -> dict[str, float]:
    return {f"{ACTIVATIONS} of {batch} samples": batch * each}
