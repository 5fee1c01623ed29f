"""Fidelity preservation (Sec. 4.1): a discriminator tells the online model's latents from the original model's."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor


def generator_loss(fake_logits: Tensor) -> Tensor:
    """Eq. 3 for the online model, in the non-saturating form -log D(z'): (B,), mean over the logits of a sample."""
    return F.softplus(-fake_logits).flatten(1).mean(1)


def discriminator_loss(real_logits: Tensor, fake_logits: Tensor) -> Tensor:
    """Eq. 3 for the discriminator: -log D(z^) - log(1 - D(z')), (B,), mean over the logits of a sample.

    Args:
        real_logits: (B, ...) for the original model's latents.
        fake_logits: (B, ...) for the online model's latents.
    """
    return F.softplus(-real_logits).flatten(1).mean(1) + F.softplus(fake_logits).flatten(1).mean(1)
