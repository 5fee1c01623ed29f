"""Peak memory and time of one gradient: replay against one autograd graph through all recorded steps.

    python -m benchmarks.replay_memory [--model data/shapes/models/base] [--resolution 128] [--batch 8] [--repeats 5]

For K = 1, 2, 5, 10 of 10 sampling steps it prints the peak of resident memory above the loaded model and the median
time of: replay; the full graph; the full graph with gradient checkpointing. Each figure is measured in a process of its
own. Concept activation alone, no merging of LoRA, so that the three compute exactly the same gradient.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time

METHODS = ("replay", "full graph", "full graph, checkpointed")
STEPS = 10


def resident(field: str) -> float:
    """`VmRSS`, resident memory of this process, or `VmHWM`, its highest since the last reset, in MB."""
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) * 1024 / 1e6 for line in file if line.startswith(field))


class Peak:
    """The highest resident memory while a block runs, as the kernel counts it, above what it was before."""

    def __enter__(self) -> Peak:
        with open("/proc/self/clear_refs", "w") as file:
            file.write("5")  # resets the high-water mark, see proc_pid_clear_refs(5)
        self.before = resident("VmRSS")
        return self

    def __exit__(self, *_: object) -> None:
        self.megabytes = resident("VmHWM") - self.before


def measure(options: argparse.Namespace) -> dict[str, float]:
    """One method, one K: peak memory of the first run and the median time of all."""
    import torch

    from comat.diffusion.backbones import load_base
    from comat.diffusion.lora import add_lora
    from comat.diffusion.rollout import rollout
    from comat.diffusion.schedulers import make_sampler
    from comat.method.replay import leaf_gradients, replay
    from comat.method.step import place_steps
    from comat.randomness import generator, noise

    backbone = load_base(options.model)
    lora = add_lora(backbone, 8, generator(0, "lora"))
    if options.method.endswith("checkpointed"):
        backbone.denoiser.enable_gradient_checkpointing()
        backbone.denoiser.train()
    prompts = backbone.encode_prompts(["a red ball and a blue cube"] * options.batch)
    record = place_steps(0, STEPS, options.k, generator(0, "steps"))

    def target(z0: torch.Tensor) -> torch.Tensor:
        return backbone.decode(z0).square().mean()

    def once() -> None:
        own = [generator(0, "noise", row) for row in range(options.batch)]
        sampler = make_sampler("ddpm", backbone.scheduler_config, STEPS)
        z = noise(backbone.latent_shape(options.resolution), own)
        if options.method == "replay":
            steps = [record] * options.batch
            done = rollout(backbone, sampler, z, prompts, 5.0, own, record=steps, chunk=options.batch)
            z0 = done.z0.detach().requires_grad_()
            (gradient,) = torch.autograd.grad(target(z0), z0)
            replay(backbone, done, leaf_gradients(done, gradient), 5.0, chunk=options.batch)
        else:
            for index, t in enumerate(sampler.timesteps):
                with torch.set_grad_enabled(index in record):
                    prediction = backbone.guided(z.detach(), t, prompts, 5.0)
                z = sampler.step(prediction, index, z, own)
            target(z).backward()
        for weight in lora:
            weight.grad = None

    with Peak() as peak:
        once()
    times = []
    for _ in range(options.repeats):
        start = time.perf_counter()
        once()
        times.append(time.perf_counter() - start)
    return {"megabytes": peak.megabytes, "seconds": statistics.median(times)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="data/shapes/models/base")
    parser.add_argument("--resolution", type=int, default=128)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--method", choices=METHODS, help=argparse.SUPPRESS)
    parser.add_argument("--k", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.method:
        print(json.dumps(measure(options)))
        return
    print(f"{'K':>3}  {'method':<26}{'peak MB':>9}{'seconds':>9}")
    for k in (1, 2, 5, 10):
        for method in METHODS:
            own = ["--method", method, "--k", str(k)]
            command = [sys.executable, "-m", "benchmarks.replay_memory", *sys.argv[1:], *own]
            found = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
            print(f"{k:>3}  {method:<26}{found['megabytes']:>9.0f}{found['seconds']:>9.2f}", flush=True)


if __name__ == "__main__":
    main()
