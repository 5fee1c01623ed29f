"""Means, and how sure we are of them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from comat.randomness import generator


def mean_interval(
    values: Sequence[float], groups: Sequence[str], resamples: int, seed: int
) -> tuple[float, float, float]:
    """The mean of values of images, with its 95% bootstrap interval: (mean, low, high).

    Images of one prompt (`groups`) are not independent, so prompts are drawn with replacement, not images. Equal groups
    are drawn equally, so of two models the interval of the difference is that of the pairs.

    Raises:
        ValueError: if there are no values, or the lengths differ.
    """
    if len(values) != len(groups) or not len(values):
        raise ValueError(f"expected equally many values and groups, at least one: {len(values)}, {len(groups)}")
    own = np.asarray(values, float)
    names, member = np.unique(np.asarray(groups), return_inverse=True)
    sums, sizes = np.bincount(member, own), np.bincount(member)
    rng = generator(seed, "bootstrap")
    drawn = torch.randint(len(names), (resamples, len(names)), generator=rng).numpy()
    means = sums[drawn].sum(1) / sizes[drawn].sum(1)
    low, high = np.percentile(means, [2.5, 97.5])
    return float(own.mean()), float(low), float(high)
