"""Generators derived from (seed, purpose, index): nothing else in the package draws random numbers.

All draws happen on the CPU, one generator a sample, so a sample's noise depends neither on its neighbours in a batch
nor on the device, the number of processes, or where a run was resumed.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable, Sequence
from typing import TypeVar

import torch
from torch import Tensor

T = TypeVar("T")


def _number(seed: int, purpose: str, *index: int | str) -> int:
    digest = hashlib.sha256(repr((seed, purpose, *index)).encode()).digest()
    return int.from_bytes(digest[:8], "big") & (2**63 - 1)


def generator(seed: int, purpose: str, *index: int | str) -> torch.Generator:
    """A CPU generator that depends on its arguments alone."""
    return torch.Generator().manual_seed(_number(seed, purpose, *index))


def python_random(seed: int, purpose: str, *index: int | str) -> random.Random:
    """The same for draws from Python's own lists."""
    return random.Random(_number(seed, purpose, *index))


def stratified(rows: Sequence[T], count: int, category: Callable[[T], str], rng: random.Random) -> list[T]:
    """`count` of `rows`, or all if there are no more, in their order: of each category its share, rounded up or down.

    Every row is as likely as any other. Lists come sorted by category, so that their heads are of one.
    """
    total = len(rows)
    if count >= total:
        return list(rows)
    groups: dict[str, list[int]] = {}
    for place, row in enumerate(rows):
        groups.setdefault(category(row), []).append(place)
    strata = list(groups.values())
    rng.shuffle(strata)
    for stratum in strata:
        rng.shuffle(stratum)
    places = [place for stratum in strata for place in stratum]
    start = rng.randrange(total)  # then steps of total / count, so that a run of n places gets n count / total of them
    return [rows[place] for place in sorted(places[(number * total + start) // count] for number in range(count))]


def noise(shape: Sequence[int], generators: Sequence[torch.Generator]) -> Tensor:
    """(B, *shape) standard normal noise on the CPU, row b drawn from `generators[b]`."""
    return torch.stack([torch.randn(tuple(shape), generator=g) for g in generators])
