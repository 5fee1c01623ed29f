"""What a model computes is finite, or one line says which part gave it and in which precision."""

from __future__ import annotations

import torch
from torch import Tensor

from comat.errors import UserError


class NotFinite(UserError):
    """A model has computed what is no number."""


def finite(values: Tensor, part: str, dtype: torch.dtype) -> Tensor:
    """`values` (B, ...) themselves.

    Args:
        part: of the model, as the message names it.
        dtype: in which the part computed them.

    Raises:
        NotFinite: if one of them is not finite.
    """
    good = torch.isfinite(values).flatten(1).all(1)
    if good.all():
        return values
    name = str(dtype).removeprefix("torch.")
    raise NotFinite(
        f"{part}: {int((~good).sum())} of {len(good)} results are no finite numbers in {name}; "
        + (
            "it overflows in this precision: set precision to bf16 or fp32, or vae to an autoencoder made for fp16"
            if dtype == torch.float16
            else "its weights are damaged, or were trained at too high a learning rate"
        )
    )
