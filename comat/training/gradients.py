"""How much each term of the loss pulls at the LoRA weights, and in which direction: what weighing the terms needs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations

import torch
from torch import Tensor

from comat.method.step import TERMS


def columns(terms: Sequence[str] = TERMS) -> list[str]:
    """Of `curves.csv`, norms and cosines; empty in the iterations that are not measured."""
    return [*(f"grad_{term}" for term in terms), *(f"cos_{a}_{b}" for a, b in combinations(terms, 2))]


def measured(gradients: Mapping[str, Tensor]) -> dict[str, float]:
    """Norms of the terms' gradients, each (P,) over all P weights, and the cosines between them; 0 beside nothing."""
    rows = torch.stack([gradient.double() for gradient in gradients.values()])
    norms = rows.norm(dim=1)
    unit = rows / torch.where(norms > 0, norms, 1.0)[:, None]
    cosines = (unit @ unit.T).tolist()
    pairs = [cosines[a][b] for a, b in combinations(range(len(rows)), 2)]
    return dict(zip(columns(list(gradients)), [*norms.tolist(), *pairs], strict=True))
