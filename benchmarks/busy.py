"""What waiting threads cost on a busy machine: a forward pass of the shapes world's UNet, alone and beside another.

    python -m benchmarks.busy

OpenMP's threads spin while they wait. Each row is a process of its own with the environment that it names; in the
second column the same loop runs in another process beside it.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import time

VARIANTS = {
    "GOMP_SPINCOUNT=300000 (libgomp's own)": {"GOMP_SPINCOUNT": "300000"},
    "GOMP_SPINCOUNT=10000 (the default here)": {"GOMP_SPINCOUNT": "10000"},
    "OMP_WAIT_POLICY=PASSIVE": {"OMP_WAIT_POLICY": "PASSIVE"},
}


def loop(seconds: float) -> float:
    """The median duration, in seconds, of forward passes of four samples during `seconds`."""
    import torch
    from diffusers import UNet2DConditionModel

    unet = UNet2DConditionModel.from_pretrained("data/shapes/models/base/unet", use_safetensors=True).eval()
    width, pooled = unet.config["cross_attention_dim"], unet.config["projection_class_embeddings_input_dim"] - 48
    z, text = torch.randn(4, 4, 16, 16), torch.randn(4, 32, width)
    added = {"text_embeds": torch.randn(4, pooled), "time_ids": torch.zeros(4, 6)}
    times: list[float] = []
    end = time.perf_counter() + seconds
    with torch.no_grad():
        while time.perf_counter() < end or len(times) < 3:
            start = time.perf_counter()
            unet(z, torch.tensor(500), text, added_cond_kwargs=added)
            times.append(time.perf_counter() - start)
    return statistics.median(times[1:])


def child(environment: dict[str, str], seconds: float) -> subprocess.Popen[str]:
    kept = {key: value for key, value in os.environ.items() if key not in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")}
    command = [sys.executable, "-m", "benchmarks.busy", "--seconds", str(seconds), "--loop"]
    return subprocess.Popen(
        command, env=kept | environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )


def measured(process: subprocess.Popen[str]) -> float:
    return float(process.communicate()[0].split()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=8)
    parser.add_argument("--loop", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.loop:
        print(loop(options.seconds))
        return
    for name, environment in VARIANTS.items():
        alone = measured(child(environment, options.seconds))
        both = [child(environment, options.seconds) for _ in range(2)]
        beside = statistics.mean(measured(process) for process in both)
        print(f"{name:42} alone {alone:.3f} s, beside another {beside:.3f} s", flush=True)


if __name__ == "__main__":
    main()
