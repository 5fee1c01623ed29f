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
from torch.autograd.profiler_util import FunctionEvent
from torch.profiler import ProfilerActivity, profile, record_function

from benchmarks.gpu_real_size import PHASES, Ranges, iterate, make_batch, metered, players_of, small_models
from comat.captioners.blip import Blip
from comat.discriminators.denoiser import DenoiserDiscriminator
from comat.params import load
from comat.running.device import DTYPES

BACKWARD, REST, BETWEEN = "backward", "the rest", "between the phases"
MODELS = ("UNet", "captioner", "autoencoder", "segmenter", "text encoders")
METHOD = ("UNet", "captioner", "autoencoder", BACKWARD)
"""What the method cannot do without."""


def name_calls(owner: object, method: str, name: str) -> None:
    """Let every call of `owner.method` be a range of the profile."""
    call = getattr(owner, method)

    @functools.wraps(call)
    def named(*args: object, **kwargs: object) -> object:
        with record_function(name):
            return call(*args, **kwargs)

    setattr(owner, method, named)


def part_of(event: FunctionEvent) -> tuple[str, str]:
    """Phase of Algorithm 1 and part of it that an event belongs to."""
    part = None
    around: FunctionEvent | None = event
    while around is not None:
        if around.name in PHASES:
            return around.name, part or REST
        if around.name in MODELS:
            part = around.name
        elif around.name.startswith("autograd::engine"):
            part = part or BACKWARD
        around = around.cpu_parent
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
    models = small_models(params, device, DTYPES[params.precision])
    backbone, captioner = models.backbone, models.captioner
    assert isinstance(captioner, Blip) and isinstance(models.discriminator, DenoiserDiscriminator)
    players = players_of(models, params)
    for unet in (backbone.denoiser, models.discriminator._backbone.denoiser):
        name_calls(unet, "forward", "UNet")
    name_calls(backbone.vae, "decode", "autoencoder")
    name_calls(captioner.model.vision_model, "forward", "captioner")
    name_calls(captioner.model.text_decoder, "forward", "captioner")
    name_calls(models.segmenter, "masks", "segmenter")
    for encoder in backbone.text_encoders:
        name_calls(encoder, "forward", "text encoders")
    step = metered(params, models)
    step.meter = Ranges()
    batch = make_batch(params, backbone.latent_shape(params.resolution), device)
    iterate(step, batch, players)
    runs = []
    for _ in range(options.repeats):
        with profile(activities=[ProfilerActivity.CPU]) as profiled, record_function("iteration"):
            iterate(step, batch, players)
        runs.append(seconds_by_part(profiled.events()))
    print(f"{datetime.date.today()}, CPU, {torch.get_num_threads()} threads, torch {torch.__version__}")
    report(runs)


if __name__ == "__main__":
    main()
