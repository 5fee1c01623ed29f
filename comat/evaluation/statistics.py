"""Means, and how sure we are of them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from comat.randomness import generator


def paired_gain(
    base: Sequence[float], tuned: Sequence[float], groups: Sequence[str], resamples: int, seed: int
) -> tuple[float, float, float]:
    """Mean of tuned - base over paired images, with its 95% bootstrap interval: (gain, low, high).

    Images of one prompt (`groups`) are not independent, so prompts are drawn with replacement, not images.

    Raises:
        ValueError: if there are no pairs, or the lengths differ.
    """
    if not len(base) == len(tuned) == len(groups) or not len(base):
        raise ValueError(f"expected equally many scores, at least one: {len(base)}, {len(tuned)}, {len(groups)}")
    return mean_interval(np.asarray(tuned, float) - np.asarray(base, float), groups, resamples, seed)


def mean_interval(
    values: Sequence[float], groups: Sequence[str], resamples: int, seed: int
) -> tuple[float, float, float]:
    """Mean with its 95% bootstrap interval: (mean, low, high); groups are drawn with replacement, not values.

    Raises:
        ValueError: if there are no values, or not as many groups.
    """
    if not len(values) == len(groups) or not len(values):
        raise ValueError(f"expected as many values as groups, at least one: {len(values)}, {len(groups)}")
    values = np.asarray(values, float)
    names, member = np.unique(np.asarray(groups), return_inverse=True)
    sums, sizes = np.bincount(member, values), np.bincount(member)
    rng = generator(seed, "bootstrap")
    drawn = torch.randint(len(names), (resamples, len(names)), generator=rng).numpy()
    means = sums[drawn].sum(1) / sizes[drawn].sum(1)
    low, high = np.percentile(means, [2.5, 97.5])
    return float(values.mean()), float(low), float(high)
