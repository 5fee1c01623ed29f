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
    return mean_of_means_interval([(values, groups)], resamples, seed)


def mean_of_means_interval(
    parts: Sequence[tuple[Sequence[float], Sequence[str]]], resamples: int, seed: int
) -> tuple[float, float, float]:
    """The mean of the means of several parts, (values, groups) each as above; the prompts of each are drawn apart.

    Raises:
        ValueError: if a part has no values, or its lengths differ.
    """
    rng = generator(seed, "bootstrap")
    means = np.mean([_resampled(values, groups, resamples, rng) for values, groups in parts], axis=0)
    low, high = np.percentile(means, [2.5, 97.5])
    return float(np.mean([np.asarray(values, float).mean() for values, _ in parts])), float(low), float(high)


def _resampled(values: Sequence[float], groups: Sequence[str], resamples: int, rng: torch.Generator) -> np.ndarray:
    """(resamples,) means of values whose groups are drawn with replacement."""
    if len(values) != len(groups) or not len(values):
        raise ValueError(f"expected equally many values and groups, at least one: {len(values)}, {len(groups)}")
    if not np.isfinite(np.asarray(values, float)).all():
        raise ValueError(f"expected finite values: {np.count_nonzero(~np.isfinite(values))} of {len(values)} are not")
    names, member = np.unique(np.asarray(groups), return_inverse=True)
    sums, sizes = np.bincount(member, np.asarray(values, float)), np.bincount(member)
    drawn = torch.randint(len(names), (resamples, len(names)), generator=rng).numpy()
    return sums[drawn].sum(1) / sizes[drawn].sum(1)
