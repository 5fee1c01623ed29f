"""Captioners: frozen image-to-text models that score an image against its prompt, differentiable in the image."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from torch import Tensor


class Captioner(Protocol):
    """What says by numbers, to be made large, how well images show their prompts.

    Of a captioner they are log-likelihoods of tokens; of another reward it may be one number for a prompt.
    """

    def log_likelihood(self, images: Tensor, prompts: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Score (B, 3, H, W) images in [0, 1]: log p of each prompt token (B, L), and which count (B, L) bool."""

    def pieces(self, prompt: str) -> list[str]:
        """The tokens of a prompt that count, in order, as text with the space before it; the last is the end."""
