"""Captioners: frozen image-to-text models that score an image against its prompt, differentiable in the image."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor


class Captioner(Protocol):
    def log_likelihood(self, images: Tensor, prompts: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Score (B, 3, H, W) images in [0, 1]: log p of each prompt token (B, L), and which count (B, L) bool."""

    def pieces(self, prompt: str) -> list[str]:
        """The tokens of a prompt that count, in order, as text with the space before it; the last is the end."""


def load_captioner(
    kind: str, model: str, revision: str | None, prefix: str, device: torch.device, dtype: torch.dtype
) -> Captioner:
    """Load a captioner by kind from a hub id or folder; frozen."""
    from comat.captioners.blip import Blip
    from comat.captioners.git import Git
    from comat.captioners.llava import Llava

    kinds: dict[str, type[Blip | Git | Llava]] = {"blip": Blip, "git": Git, "llava": Llava}
    return kinds[kind](model, revision, prefix, device, dtype)
