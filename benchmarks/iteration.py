"""A CoMat iteration against plain implementations: the full graph with explicit, and with fused attention.

    python -m benchmarks.iteration [--divisor 8] [--side 64] [--steps 4] [--k 2] [--repeats 5]

The UNet is SD1.5's with an eighth (or a quarter: `--divisor 4`) of its channels and heads, which stay as wide as
SD1.5's, with random weights, at 64x64 latents; the discriminator is another one. The autoencoder has an eighth of the
channels; captioner and segmenter are the shapes world's. One prompt, all losses but mixed latents, LoRA of rank 16.
Full graph: autograd through all recorded steps with gradient checkpointing of both UNets' blocks. Replay runs without
and with it (`train.gradient_checkpointing`). The gradients of all must agree before anything is timed; then they take
turns, and the medians of the rounds' ratios are printed, of CPU time and of the clock. Memory is the peak of resident
memory above the loaded models, each in a process of its own, whose allocator gives back what is freed.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from typing import NamedTuple

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from torch import Tensor, nn
from transformers import CLIPTextConfig, CLIPTextModel

from benchmarks.full_graph import checkpoint_blocks, full_graph_loss, materialise_attention
from benchmarks.gpu_real_size import ENTITIES, PROMPT
from benchmarks.replay_memory import Peak
from comat.captioners.load import load_teacher
from comat.diffusion.backbones import Backbone
from comat.diffusion.lora import add_lora
from comat.discriminators.denoiser import DenoiserDiscriminator
from comat.estimate import architectures
from comat.method.batch import Batch
from comat.method.step import Step
from comat.params import Params, load
from comat.randomness import generator
from comat.segmenters.load import load_segmenter
from comat.tokenizers import load_tokenizers

CHECKPOINTED = {"replay": "none", "replay, decoder checkpointed": "decoder", "replay, all checkpointed": "all"}
VARIANTS = (*CHECKPOINTED, "full graph, explicit attention", "full graph, fused attention")
# Of glibc: what is freed goes back to the system, so that resident memory is what is held, not what once was.
RETURN_MEMORY = {"MALLOC_MMAP_THRESHOLD_": "131072", "MALLOC_TRIM_THRESHOLD_": "131072"}
RANK = 16
TOLERANCE = 1e-4


class Seconds(NamedTuple):
    """Of one iteration: the process's CPU time, user and system, all threads; and the clock's."""

    cpu: float
    wall: float


def build_backbone(divisor: int) -> Backbone:
    """SD1.5 with 1 of `divisor` channels and heads, and random weights."""
    torch.manual_seed(0)
    (tokenizer, *_) = load_tokenizers("data/shapes/models/base")
    real = architectures.UNETS["sd15"]
    widths = tuple(width // divisor for width in real["block_out_channels"])
    heads = real["attention_head_dim"] // divisor  # diffusers' name for their number
    small = {"block_out_channels": widths, "attention_head_dim": heads, "norm_num_groups": 8}
    unet = UNet2DConditionModel(**real | small)
    vae = AutoencoderKL(**architectures.VAES["sd15"] | {"block_out_channels": (16, 32, 64, 64), "norm_num_groups": 16})
    text = CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=768,
        intermediate_size=768,
        num_hidden_layers=2,
        max_position_embeddings=tokenizer.model_max_length,
    )
    return architectures.put_together(unet, vae, [CLIPTextModel(text)], [tokenizer], dict(architectures.NOISE))


class Setting(NamedTuple):
    """The step, its weights that learn, and what it trains on."""

    step: Step
    lora: list[nn.Parameter]
    critic: DenoiserDiscriminator
    batch: Batch


def build(params: Params, divisor: int) -> Setting:
    device = torch.device("cpu")
    backbone = build_backbone(divisor)
    lora = add_lora(backbone, RANK, generator(0, "lora"))
    with torch.no_grad():  # B is zero at first, which would hide errors in the gradient of A
        for weight in lora:
            weight.add_(0.02 * torch.randn(weight.shape, generator=generator(1, "shake")))
    captioner = load_teacher(params, device, torch.float32)
    segmenter = load_segmenter(params, device, torch.float32)
    judge = build_backbone(divisor)
    if params.train.gradient_checkpointing == "all":
        judge.denoiser.enable_gradient_checkpointing()
    critic = DenoiserDiscriminator(judge, RANK, generator(0, "critic"))
    shape = backbone.latent_shape(params.resolution)
    reference = torch.randn(1, *shape, generator=generator(0, "reference"))
    step = Step(params, params.train, backbone, captioner, segmenter, critic)
    return Setting(step, lora, critic, Batch(0, [PROMPT], [ENTITIES[:2]], reference))


def iteration(variant: str, setting: Setting) -> Callable[[], Tensor]:
    """A call that computes one iteration's gradients and returns that of the LoRA, flat."""
    step, lora, critic, batch = setting
    reference = batch.reference
    assert reference is not None

    def replay() -> Tensor:
        step(batch)
        return torch.cat([weight.grad.flatten() for weight in lora if weight.grad is not None])

    def full_graph() -> Tensor:
        gradients = torch.autograd.grad(full_graph_loss(step, batch), lora)
        step.discriminate(reference, batch)  # as much work on these latents as on the generated ones
        return torch.cat([gradient.flatten() for gradient in gradients])

    if variant.startswith("replay"):
        return replay
    for unet in (step.backbone.denoiser, critic._backbone.denoiser):
        checkpoint_blocks(unet)
        if "explicit" in variant:
            materialise_attention(unet)
    return full_graph


def prepared(variant: str, options: argparse.Namespace) -> Callable[[], Tensor]:
    params = load("presets/shapes.yaml")
    changes = {"resolution": 8 * options.side, "sampling_steps": options.steps, "grad_steps": options.k}
    changes |= {"attribute_steps": 1, "global_batch": 1, "image_batch": 0, "crop_jitter": False}
    checkpointed = CHECKPOINTED.get(variant, "none")
    changes["train"] = params.train.model_copy(update={"gradient_checkpointing": checkpointed})
    setting = build(params.model_copy(update=changes), options.divisor)
    run = iteration(variant, setting)
    weights = [*setting.lora, *setting.critic.trainable_parameters()]

    def once() -> Tensor:
        for weight in weights:
            weight.grad = None
        return run()

    return once


def compare(options: argparse.Namespace) -> None:
    runs = {variant: prepared(variant, options) for variant in options.variants}
    gradients = {variant: run() for variant, run in runs.items()}
    first, ours = options.variants[0], gradients[options.variants[0]].double()
    for variant, gradient in gradients.items():
        difference = float((gradient.double() - ours).norm() / ours.norm())
        print(f"gradient against that of {first}, relative: {difference:.1e}  {variant}", flush=True)
        assert ours.norm() > 0 and difference < TOLERANCE
    seconds: dict[str, list[Seconds]] = {variant: [] for variant in options.variants}
    for _ in range(options.repeats):
        for variant, run in runs.items():
            cpu, wall = time.process_time(), time.perf_counter()
            run()
            seconds[variant].append(Seconds(time.process_time() - cpu, time.perf_counter() - wall))
    del runs
    show(seconds, {variant: measured_peak(variant) for variant in options.variants})


def show(seconds: dict[str, list[Seconds]], peaks: dict[str, float]) -> None:
    """Medians by variant; then the ratios of each form of replay to each reference."""
    print(f"\n{'':<44}{'CPU s':>9}{'wall s':>9}{'peak MB':>9}")
    for variant, rounds in seconds.items():
        cpu, wall = (statistics.median(column) for column in zip(*rounds, strict=True))
        print(f"{variant:<44}{cpu:>9.2f}{wall:>9.2f}{peaks[variant]:>9.0f}")
    print(f"\n{'ratio':<44}{'CPU':>6} (lowest, highest){'wall':>7} (lowest, highest){'peak':>7}")
    replays, references = ([v for v in seconds if (v in CHECKPOINTED) == own] for own in (True, False))
    for ours, theirs in itertools.product(replays, references):
        print(f"{ours + ' / ' + theirs.removeprefix('full graph, '):<44}", end="")
        pairs = list(zip(seconds[ours], seconds[theirs], strict=True))
        for ratios in ([a.cpu / b.cpu for a, b in pairs], [a.wall / b.wall for a, b in pairs]):
            print(f"{statistics.median(ratios):>6.2f} {f'({min(ratios):.2f}, {max(ratios):.2f})':<18}", end="")
        print(f"{peaks[ours] / peaks[theirs]:>7.2f}")


def measured_peak(variant: str) -> float:
    """MB of one iteration above the loaded models, in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.iteration", *sys.argv[1:], "--variant", variant]
    env = os.environ | RETURN_MEMORY
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=env)
    return json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--divisor", type=int, choices=(4, 8), default=8, help="of SD1.5's channels")
    parser.add_argument("--side", type=int, default=64, help="of the latents")
    parser.add_argument("--steps", type=int, default=4, help="T")
    parser.add_argument("--k", type=int, default=2, help="K")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--variants", nargs="+", choices=VARIANTS, default=VARIANTS)
    parser.add_argument("--variant", choices=VARIANTS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.variant:
        once = prepared(options.variant, options)
        with Peak() as peak:
            once()
        print(json.dumps(peak.megabytes))
        return
    compare(options)


if __name__ == "__main__":
    main()
