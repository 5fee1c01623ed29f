"""How much each term of the loss pulls at the LoRA weights, and in which direction: what weighing the terms needs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations

import torch
from torch import Tensor

from comat.method.step import TERMS


def gradient_columns(terms: Sequence[str] = TERMS) -> list[str]:
    """Of `curves.csv`, norms and cosines; empty in the iterations that are not measured."""
    return [*(f"grad_{term}" for term in terms), *(f"cos_{a}_{b}" for a, b in combinations(terms, 2))]


def measured(gradients: Mapping[str, Sequence[Tensor]]) -> dict[str, float]:
    """Norms of the terms' gradients and the cosines between them; 0 beside nothing.

    Args:
        gradients: of each term those of all weights, in the order of the weights, on the host.

    All come from the products of the terms with each other, summed weight by weight in float64: nothing is held of
    all weights besides what is given.
    """
    count = len(gradients)
    products = torch.zeros(count, count, dtype=torch.float64)
    for of_weight in zip(*gradients.values(), strict=True):
        rows = torch.stack([gradient.flatten() for gradient in of_weight]).double()
        products += rows @ rows.T
    norms = products.diagonal().sqrt()
    lengths = torch.where(norms > 0, norms, 1.0)
    cosines = (products / (lengths[:, None] * lengths)).tolist()
    pairs = [cosines[a][b] for a, b in combinations(range(count), 2)]
    return dict(zip(gradient_columns(list(gradients)), [*norms.tolist(), *pairs], strict=True))
