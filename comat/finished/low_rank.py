"""One LoRA for the stock base: all that warm-up and CoMat changed, by truncated singular value decomposition."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from comat.finished.weights import Lora, shares


@dataclass(frozen=True)
class LowRank:
    """The LoRA of a change, and of each changed tensor the norms of the change and of what the LoRA leaves out.

    `depthwise`: the weights of depth-wise convolutions, which are left out whole.
    """

    lora: Mapping[str, Lora]
    norms: Mapping[str, float]
    left_out: Mapping[str, float]
    depthwise: Sequence[str] = ()

    @property
    def error(self) -> float:
        """Of the whole change, the share that is left out: relative in the Frobenius norm, 0 to 1."""
        return shares(self.left_out) / shares(self.norms) if self.norms else 0.0

    @property
    def errors(self) -> dict[str, float]:
        """The same of each tensor."""
        return {name: self.left_out[name] / norm for name, norm in self.norms.items()}

    @property
    def without_place(self) -> list[str]:
        """The tensors of which nothing is in the LoRA."""
        return [name for name in self.norms if name.removesuffix(".weight") not in self.lora]


def low_rank(changes: Iterable[tuple[str, Tensor]], rank: int, device: torch.device) -> LowRank:
    """The best LoRA of `rank` (Eckart and Young 1936) of changed tensors, by names that end in `.weight` or `.bias`.

    It holds the weights of linear layers (outputs, inputs) and of convolutions (outputs, inputs, h, w). No LoRA has a
    place for biases, the scales of norms and a model's own tables, nor for the kernels of depth-wise convolutions
    (channels, 1, h, w), each of one channel, which no product of two thin convolutions makes: they are left out whole.
    Each layer gets the same rank, padded with zeros where it has a smaller one, since not every program reads a rank
    for each layer.
    """
    lora: dict[str, Lora] = {}
    norms: dict[str, float] = {}
    left_out: dict[str, float] = {}
    depthwise: list[str] = []
    for name, change in changes:
        norms[name] = left_out[name] = float(change.norm())
        # The one kind of grouped convolution in the models here, in Sana; none has an ordinary one of a single channel.
        if change.ndim == 4 and change.shape[1] == 1:
            depthwise.append(name)
        elif change.ndim in (2, 4) and name.endswith(".weight"):
            own = _truncated(change.to(device), rank)
            lora[name.removesuffix(".weight")] = own
            whole = own.up.flatten(1).float() @ own.down.flatten(1).float()
            left_out[name] = float((change.flatten(1) - whole).norm())
    return LowRank(lora, norms, left_out, depthwise)


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
