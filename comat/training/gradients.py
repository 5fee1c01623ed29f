"""How much each term of the loss pulls at the LoRA weights, and in which direction: what weighing the terms needs."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import combinations

import torch
from torch import Tensor

from comat.method.step import TERMS

NORMS = {term: f"grad_{term}" for term in TERMS}
COSINES = {(a, b): f"cos_{a}_{b}" for a, b in combinations(TERMS, 2)}
COLUMNS = [*NORMS.values(), *COSINES.values()]
"""Of `curves.csv`; empty in the iterations that are not measured."""


def measured(gradients: Mapping[str, Tensor]) -> dict[str, float]:
    """Norms of the terms' gradients, each (P,) over all P weights, and the cosines between them; 0 beside nothing."""
    rows = torch.stack([gradients[term].double() for term in TERMS])
    norms = rows.norm(dim=1)
    unit = rows / torch.where(norms > 0, norms, 1.0)[:, None]
    cosines = (unit @ unit.T).tolist()
    found = dict(zip(NORMS.values(), norms.tolist(), strict=True))
    return found | {name: cosines[TERMS.index(a)][TERMS.index(b)] for (a, b), name in COSINES.items()}
