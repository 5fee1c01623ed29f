"""Concept activation (Sec. 4.1): the generated image must let a captioner find the prompt."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from comat.captioners import Captioner
from comat.captioners.load import Mixture, teachers_of


def concept_activation_loss(log_p: Tensor, counts: Tensor, reduction: str = "mean") -> Tensor:
    """Eq. 2: negative log-likelihood of each prompt given its image, (B,).

    Args:
        log_p: (B, L) log-probabilities of the prompt's tokens.
        counts: (B, L) bool, which tokens belong to the prompt.
        reduction: over tokens, "sum" as printed or "mean" as the published weights were tuned to.

    Raises:
        ValueError: for another reduction.
    """
    total = -(log_p * counts).sum(1)
    if reduction == "sum":
        return total
    if reduction == "mean":
        return total / counts.sum(1).clamp(min=1)
    raise ValueError(f"caption_reduction is {reduction!r}: expected 'mean' or 'sum'")


def captioners_loss(
    captioner: Captioner | Mixture, images: Tensor, prompts: Sequence[str], reduction: str
) -> tuple[Tensor, dict[str, Tensor]]:
    """Eq. 2 by one captioner or several: the sum of their losses, each times its weight, and each before that.

    Args:
        images: (B, 3, H, W) in [0, 1].

    Returns: (B,) the loss, and (B,) by the names of several captioners, without gradient; of one alone none.
    """
    total = images.new_zeros(len(images), dtype=torch.float32)
    own: dict[str, Tensor] = {}
    for teacher in teachers_of(captioner):
        loss = concept_activation_loss(*teacher.captioner.log_likelihood(images, prompts), reduction)
        total = total + teacher.weight * loss
        if teacher.name:
            own[teacher.name] = loss.detach()
    return total, own


def jitter_crop(images: Tensor, generator: torch.Generator) -> Tensor:
    """Crop (B, 3, H, W) images at a random offset of up to H // 224 pixels, the same for the batch."""
    most = images.shape[-2] // 224
    if most == 0:
        return images
    y, x = torch.randint(0, most + 1, (2,), generator=generator).tolist()
    return images[..., y : images.shape[-2] - most + y, x : images.shape[-1] - most + x]
