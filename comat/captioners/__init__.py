"""Captioners: frozen image-to-text models that score an image against its prompt, differentiable in the image."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor

from comat.errors import UserError
from comat.models.loading import loaded


class Captioner(Protocol):
    def log_likelihood(self, images: Tensor, prompts: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Score (B, 3, H, W) images in [0, 1]: log p of each prompt token (B, L), and which count (B, L) bool."""

    def pieces(self, prompt: str) -> list[str]:
        """The tokens of a prompt that count, in order, as text with the space before it; the last is the end."""


def load_captioner(
    kind: str, model: str, revision: str | None, prefix: str, device: torch.device, dtype: torch.dtype
) -> Captioner:
    """Load a captioner by kind from a hub id or folder; frozen.

    Raises:
        UserError: if it cannot be had, or makes nothing of a grey image: its files are not of one model then.
    """
    from comat.captioners.blip import Blip
    from comat.captioners.git import Git
    from comat.captioners.llava import Llava

    kinds: dict[str, type[Blip | Git | Llava]] = {"blip": Blip, "git": Git, "llava": Llava}
    captioner = kinds[kind](model, revision, prefix, device, dtype)

    def tried() -> Captioner:
        with torch.no_grad():
            log_p, _ = captioner.log_likelihood(torch.full((1, 3, 64, 64), 0.5, device=device), ["a thing"])
        if log_p.isnan().any():
            raise UserError(
                f"captioner_model {model!r}: what it says of a grey image is not a number; download it again"
            )
        return captioner

    return loaded(model, f"captioner {kind} (tried on a grey image)", tried)
