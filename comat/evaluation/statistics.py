"""Means, and how sure we are of them."""

from __future__ import annotations

from collections.abc import Sequence
from math import hypot

import numpy as np
import torch
from scipy.stats import beta, t

from comat.randomness import generator

FEWEST = 10
"""Prompts below which there is no interval: the bootstrap's nominal 95% hold the mean of five in 87% (coverage.py)."""
RARE = 5
"""Prompts with a success, or with a failure, below which the bootstrap knows too little of what it has hardly seen."""

Part = tuple[Sequence[float], Sequence[str]]
"""Values of images, and the prompt of each."""
Interval = tuple[float, float | None, float | None]
"""A mean and its 95% interval; None where there are too few prompts for one."""


def prompts_of(parts: Sequence[Part]) -> int:
    return sum(len(set(groups)) for _, groups in parts)


def interval_of(parts: Sequence[Part], resamples: int, seed: int) -> Interval:
    """The mean of the means of several parts with its 95% interval.

    By the bootstrap; where successes are rare, by an exact one.

    Raises:
        ValueError: if a part has no values, its lengths differ, or a value is not finite.
    """
    mean, low, high = mean_of_means_interval(parts, resamples, seed)
    if _too_few(parts):
        return mean, None, None
    return _together([exact_interval(*part) for part in parts]) if _rare(parts) else (mean, low, high)


def difference_of(over: Sequence[Part], under: Sequence[Part], resamples: int, seed: int) -> Interval:
    """The mean of `over` less that of `under`, of the same images in the same order, with its 95% interval.

    By the bootstrap of the pairs; where successes of either are rare, from both exact intervals (Newcombe 1998).

    Raises:
        ValueError: as `interval_of`.
    """
    gains = [
        ([a - b for a, b in zip(values, others, strict=True)], groups)
        for (values, groups), (others, _) in zip(over, under, strict=True)
    ]
    mean, low, high = mean_of_means_interval(gains, resamples, seed)
    if _too_few(gains):
        return mean, None, None
    if not (_rare(over) or _rare(under)):
        return mean, low, high
    (a, a_low, a_high), (b, b_low, b_high) = (_together([exact_interval(*p) for p in side]) for side in (over, under))
    return mean, mean - hypot(a - a_low, b_high - b), mean + hypot(a_high - a, b - b_low)


def _too_few(parts: Sequence[Part]) -> bool:
    return any(len(set(groups)) < FEWEST for _, groups in parts)


def _rare(parts: Sequence[Part]) -> bool:
    """Whether values are shares, of which too few prompts have another than 0, or than 1."""
    if any(not 0 <= value <= 1 for values, _ in parts for value in values):
        return False
    counts = [
        len({group for value, group in zip(values, groups, strict=True) if value != limit})
        for values, groups in parts
        for limit in (0, 1)
    ]
    return min(counts) < RARE


def exact_interval(values: Sequence[float], groups: Sequence[str]) -> tuple[float, float, float]:
    """A mean of values in [0, 1] and its 95% interval of Clopper and Pearson, for images in groups: Korn and Graubard.

    Images of one prompt are not independent: they count as so many as would give the same variance, as many as there
    are prompts where all values are equal. At least two groups.
    """
    own = np.asarray(values, float)
    names, member = np.unique(np.asarray(groups), return_inverse=True)
    mean, count = float(own.mean()), len(names)
    apart = np.bincount(member, own - mean)
    variance = float((apart**2).sum()) / len(own) ** 2
    size = mean * (1 - mean) / variance if variance > 0 else count
    wider = (t.ppf(0.975, len(own) - 1) / t.ppf(0.975, count - 1)) ** 2
    size = min(size * float(wider), len(own))
    right = mean * size
    low = float(beta.ppf(0.025, right, size - right + 1)) if right > 0 else 0.0
    high = float(beta.ppf(0.975, right + 1, size - right)) if right < size else 1.0
    return mean, low, high


def _together(parts: Sequence[tuple[float, float, float]]) -> tuple[float, float, float]:
    """The mean of independent means, and its interval from theirs (Zou and Donner 2008)."""
    mean = sum(middle for middle, _, _ in parts) / len(parts)
    below, above = hypot(*(m - low for m, low, _ in parts)), hypot(*(high - m for m, _, high in parts))
    return mean, mean - below / len(parts), mean + above / len(parts)


def mean_interval(
    values: Sequence[float], groups: Sequence[str], resamples: int, seed: int
) -> tuple[float, float, float]:
    """The mean of values of images, with its 95% bootstrap interval: (mean, low, high).

    Images of one prompt (`groups`) are not independent, so prompts are drawn with replacement, not images. Equal groups
    are drawn equally, so of two models the interval of the difference is that of the pairs.

    Raises:
        ValueError: if there are no values, the lengths differ, or a value is not finite.
    """
    return mean_of_means_interval([(values, groups)], resamples, seed)


def enough_interval(values: Sequence[float], groups: Sequence[str], resamples: int, seed: int) -> Interval:
    """`mean_interval` of any numbers, shares or not; of fewer groups than `FEWEST` there is none.

    Raises:
        ValueError: as `mean_interval`.
    """
    mean, low, high = mean_interval(values, groups, resamples, seed)
    return (mean, None, None) if _too_few([(values, groups)]) else (mean, low, high)


def mean_of_means_interval(parts: Sequence[Part], resamples: int, seed: int) -> tuple[float, float, float]:
    """The mean of the means of several parts, (values, groups) each as above; the prompts of each are drawn apart.

    Raises:
        ValueError: as `mean_interval`, of any part.
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
