"""Generators derived from (seed, purpose, index): nothing else in the package draws random numbers.

All draws happen on the CPU, one generator a sample, so a sample's noise depends neither on its neighbours in a batch
nor on the device, the number of processes, or where a run was resumed.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Sequence

import torch
from torch import Tensor


def _number(seed: int, purpose: str, *index: int | str) -> int:
    digest = hashlib.sha256(repr((seed, purpose, *index)).encode()).digest()
    return int.from_bytes(digest[:8], "big") & (2**63 - 1)


def generator(seed: int, purpose: str, *index: int | str) -> torch.Generator:
    """A CPU generator that depends on its arguments alone."""
    return torch.Generator().manual_seed(_number(seed, purpose, *index))


def python_random(seed: int, purpose: str, *index: int | str) -> random.Random:
    """The same for draws from Python's own lists."""
    return random.Random(_number(seed, purpose, *index))


def noise(shape: Sequence[int], generators: Sequence[torch.Generator]) -> Tensor:
    """(B, *shape) standard normal noise on the CPU, row b drawn from `generators[b]`."""
    return torch.stack([torch.randn(tuple(shape), generator=g) for g in generators])
