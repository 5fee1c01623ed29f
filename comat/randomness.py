"""Generators derived from (seed, purpose, index): nothing else in the package draws random numbers."""

from __future__ import annotations

import hashlib

import torch


def generator(seed: int, purpose: str, *index: int | str) -> torch.Generator:
    """A CPU generator that depends on its arguments alone."""
    digest = hashlib.sha256(repr((seed, purpose, *index)).encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "big") & (2**63 - 1))
