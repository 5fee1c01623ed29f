"""One LoRA for the stock base: all that warm-up and CoMat changed, by truncated singular value decomposition."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from comat.finished.weights import Lora, shares


@dataclass(frozen=True)
class LowRank:
    """The LoRA of a change, and of each changed tensor the norms of the change and of what the LoRA leaves out."""

    lora: Mapping[str, Lora]
    norms: Mapping[str, float]
    left_out: Mapping[str, float]

    @property
    def error(self) -> float:
        """Of the whole change, the share that is left out: relative in the Frobenius norm, 0 to 1."""
        return shares(self.left_out) / shares(self.norms) if self.norms else 0.0

    @property
    def errors(self) -> dict[str, float]:
        """The same of each tensor."""
        return {name: self.left_out[name] / norm for name, norm in self.norms.items()}


def low_rank(changes: Iterable[tuple[str, Tensor]], rank: int, device: torch.device) -> LowRank:
    """The best LoRA of `rank` (Eckart and Young 1936) of changed tensors, by names that end in `.weight` or `.bias`.

    It holds the weights of linear layers (outputs, inputs) and of convolutions (outputs, inputs, h, w). Biases and the
    scales of norms are vectors, for which no LoRA has a place: they are left out whole. Each layer gets the same rank,
    padded with zeros where it has a smaller one, since not every program reads a rank for each layer.
    """
    lora: dict[str, Lora] = {}
    norms: dict[str, float] = {}
    left_out: dict[str, float] = {}
    for name, change in changes:
        norms[name] = left_out[name] = float(change.norm())
        if change.ndim in (2, 4) and name.endswith(".weight"):
            own = _truncated(change.to(device), rank)
            lora[name.removesuffix(".weight")] = own
            whole = own.up.flatten(1).float() @ own.down.flatten(1).float()
            left_out[name] = float((change.flatten(1) - whole).norm())
    return LowRank(lora, norms, left_out)


def _truncated(change: Tensor, rank: int) -> Lora:
    """Down (rank, inputs, h, w) and up (outputs, rank, 1, 1) of a convolution; without h and w of a linear layer."""
    u, s, v = torch.linalg.svd(change.flatten(1), full_matrices=False)
    kept = min(rank, len(s))
    root = s[:kept].sqrt()
    up = F.pad(u[:, :kept] * root, (0, rank - kept))
    down = F.pad(root[:, None] * v[:kept], (0, 0, 0, rank - kept))
    if change.ndim == 4:
        return Lora(down.view(rank, *change.shape[1:]).cpu(), up[:, :, None, None].cpu())
    return Lora(down.cpu(), up.cpu())
