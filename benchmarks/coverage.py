"""How often the 95% intervals of `comat.evaluation.statistics` hold the truth, by prompts and by how rare successes
are.

    python benchmarks/coverage.py [--repeats 2000]

Every prompt has a chance of its own, drawn from a Beta distribution of the given mean, and two images, each right with
that chance: what an oracle, GenEval or a person says of images. Of each row: how often the bootstrap over prompts holds
the mean, how often `interval_of` does (nothing below ten prompts; the exact one where successes are rare), and the same
of the gain between two models that share the prompts.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass

import numpy as np

from comat.evaluation.statistics import FEWEST, Interval, Part, difference_of, interval_of, mean_of_means_interval

SEEDS = 2
RESAMPLES = 500
SPREAD = 2.0
"""The sum of the Beta distribution's parameters: at 2 and a mean of 1/2 every chance is as likely as another."""


@dataclass
class Held:
    """How often an interval held the truth, of how many."""

    held: int = 0
    given: int = 0

    def add(self, found: Interval, truth: float) -> None:
        _, low, high = found
        if low is not None and high is not None:
            self.held += low <= truth <= high
            self.given += 1

    def __str__(self) -> str:
        return f"{self.held / self.given:.2f}" if self.given else "none"


def draw(rng: np.random.Generator, prompts: int, mean: float) -> Part:
    chances = np.repeat(rng.beta(mean * SPREAD, (1 - mean) * SPREAD, prompts), SEEDS)
    groups = [str(number // SEEDS) for number in range(prompts * SEEDS)]
    return (rng.random(prompts * SEEDS) < chances).astype(float).tolist(), groups


def coverage(prompts: int, mean: float, gain: float, repeats: int, seed: int = 0) -> tuple[Held, Held, Held]:
    """Of the bootstrap and of `interval_of` a mean, of `difference_of` a gain over it."""
    rng = np.random.default_rng(seed)
    bootstrap, own, gains = Held(), Held(), Held()
    for repeat in range(repeats):
        base, tuned = draw(rng, prompts, mean), draw(rng, prompts, mean + gain)
        bootstrap.add(mean_of_means_interval([base], RESAMPLES, repeat), mean)
        own.add(interval_of([base], RESAMPLES, repeat), mean)
        gains.add(difference_of([tuned], [base], RESAMPLES, repeat), gain)
    return bootstrap, own, gains


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=2000)
    repeats = parser.parse_args().repeats
    print(f"nominal 0.95; below {FEWEST} prompts no interval is given\n")
    print(f"{'prompts':>8}{'mean':>8}{'bootstrap':>12}{'ours':>8}{'gain':>8}")
    for mean, gain in ((0.5, 0.1), (0.05, 0.05), (0.01, 0.0)):
        for prompts in (1, 3, 5, 10, 20, 50, 100, 300):
            bootstrap, own, gains = coverage(prompts, mean, gain, repeats)
            print(f"{prompts:>8}{mean:>8.2f}{bootstrap!s:>12}{own!s:>8}{gains!s:>8}", flush=True)


if __name__ == "__main__":
    main()
