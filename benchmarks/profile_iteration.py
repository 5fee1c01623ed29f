"""Where one training iteration spends its time, by torch's profiler: models, their backward passes, and all the rest.

    python -m benchmarks.profile_iteration [--preset shapes] [--repeats 3]

The models that the repository ships (the shapes world's) under the preset's parameters, on one batch. Each phase of
Algorithm 1 is divided into the forward passes of the models, the backward pass, and what is neither: schedulers,
guidance, noise, merging of LoRA, tokens, the losses' own arithmetic, Python. Times are those of the profiled run, which
the profiler itself slows; shares are what to read. The first iteration warms up.
"""

from __future__ import annotations

import argparse
import datetime
import functools
import statistics
from collections import Counter

import torch
from torch import nn
from torch.autograd.profiler_util import FunctionEvent
from torch.profiler import ProfilerActivity, profile, record_function

from benchmarks.gpu_real_size import PHASES, MeteredStep, Ranges, iterate, make_batch, small_models
from comat.diffusion.lora import add_lora
from comat.params import load
from comat.randomness import generator
from comat.running.device import DTYPES

BACKWARD, REST, BETWEEN = "backward", "the rest", "between the phases"
MODELS = ("UNet", "captioner", "autoencoder", "segmenter", "text encoders")
METHOD = ("UNet", "captioner", "autoencoder", BACKWARD)
"""What the method cannot do without."""


def name_calls(module: nn.Module, method: str, name: str) -> None:
    """Let every call of `module.method` be a range of the profile."""
    call = getattr(module, method)

    @functools.wraps(call)
    def named(*args, **kwargs):
        with record_function(name):
            return call(*args, **kwargs)

    setattr(module, method, named)


def part_of(event: FunctionEvent) -> tuple[str, str]:
    """Phase of Algorithm 1 and part of it that an event belongs to."""
    part = None
    while event is not None:
        if event.name in PHASES:
            return event.name, part or REST
        if event.name in MODELS:
            part = event.name
        elif event.name.startswith("autograd::engine"):
            part = part or BACKWARD
        event = event.cpu_parent
    return BETWEEN, part or REST


def seconds_by_part(events: list[FunctionEvent]) -> Counter[tuple[str, str]]:
    """Seconds of each part; every moment is counted once, at the innermost event."""
    found: Counter[tuple[str, str]] = Counter()
    for event in events:
        found[part_of(event)] += event.self_cpu_time_total / 1e6
    return found


def report(runs: list[Counter[tuple[str, str]]]) -> None:
    order = [*PHASES, BETWEEN]
    keys = sorted({key for run in runs for key in run}, key=lambda key: (order.index(key[0]), key[1]))
    seconds = {key: statistics.median(run[key] for run in runs) for key in keys}
    total = sum(seconds.values())
    print(f"{'phase':<22}{'part':<16}{'seconds':>9}{'share':>8}")
    for (phase, part), value in seconds.items():
        print(f"{phase:<22}{part:<16}{value:>9.3f}{value / total:>8.1%}")
    rest = sum(value for (_, part), value in seconds.items() if part not in METHOD)
    print(f"\nneither UNet, captioner nor autoencoder, forward or backward: {rest / total:.1%} of {total:.2f} s")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", default="shapes", help="its parameters; models must be folders that are there")
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    params, device = load(f"presets/{options.preset}.yaml"), torch.device("cpu")
    backbone, captioner, segmenter, critic = small_models(params, device, DTYPES[params.precision])
    lora = add_lora(backbone.unet, params.lora_rank, generator(params.seed, "lora"))
    optimizers = [torch.optim.AdamW(weights, 1e-5) for weights in (lora, critic.trainable_parameters())]
    for unet in (backbone.unet, critic._backbone.unet):
        name_calls(unet, "forward", "UNet")
    name_calls(backbone.vae, "decode", "autoencoder")
    name_calls(captioner.model.vision_model, "forward", "captioner")
    name_calls(captioner.model.text_decoder, "forward", "captioner")
    name_calls(segmenter, "masks", "segmenter")
    for encoder in backbone.text_encoders:
        name_calls(encoder, "forward", "text encoders")
    step = MeteredStep(params, backbone, captioner, segmenter, critic)
    step.meter = Ranges()
    batch = make_batch(params, backbone.latent_shape(params.resolution), device)
    iterate(step, batch, lora, critic, optimizers)
    runs = []
    for _ in range(options.repeats):
        with profile(activities=[ProfilerActivity.CPU]) as profiled, record_function("iteration"):
            iterate(step, batch, lora, critic, optimizers)
        runs.append(seconds_by_part(profiled.events()))
    print(f"{datetime.date.today()}, CPU, {torch.get_num_threads()} threads, torch {torch.__version__}")
    report(runs)


if __name__ == "__main__":
    main()
