"""What train.deterministic costs: the gradients of an iteration of the shapes world, with and without, in turns.

    python -m benchmarks.determinism [--repeats 5]

CPU time of four prompts and two real images at ten steps. Of a GPU `benchmarks.gpu_real_size` tells,
with `--fastest` and without.
"""

from __future__ import annotations

import argparse
import statistics
import time

from benchmarks.half_precision import gradient, setting
from comat.params import load
from comat.running.device import use_deterministic_algorithms


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5)
    step, weights = setting(load("presets/shapes.yaml"), "fp32", {"image_batch": 2}, 0.05)
    gradient(step, weights, 0)
    ratios = []
    for _ in range(parser.parse_args().repeats):
        seconds = {}
        for on in (True, False):
            use_deterministic_algorithms(on)
            start = time.process_time()
            gradient(step, weights, 0)
            seconds[on] = time.process_time() - start
        ratios.append(seconds[True] / seconds[False])
    print(f"deterministic / fastest: {statistics.median(ratios):.3f} ({min(ratios):.3f} to {max(ratios):.3f})")


if __name__ == "__main__":
    main()
