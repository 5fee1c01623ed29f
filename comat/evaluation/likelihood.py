"""How well the captioner that trained reads each word of a prompt in an image (the terms of Eq. 2)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from comat.captioners import Captioner
from comat.captioners.load import load_captioner
from comat.diffusion.sampling import in_batches
from comat.judges.pixels import pixels_of
from comat.params import Computing, OneCaptioner
from comat.running.device import DTYPES, choose_device

END = "(end)"
"""Stands for the end token: a caption that should go on is not the prompt."""


@dataclass(frozen=True)
class Read:
    """A prompt as its words, and log p of each word given the image and the words before it."""

    words: list[str]
    log_p: list[float]


def words_of(pieces: Sequence[str]) -> list[list[int]]:
    """Group tokens to words: a word begins where a space does; the last token, the end, stands alone."""
    groups: list[list[int]] = []
    for place, piece in enumerate(pieces[:-1]):
        if not groups or piece[:1].isspace():
            groups.append([])
        groups[-1].append(place)
    return [*groups, [len(pieces) - 1]]


@torch.no_grad()
def read_words(captioner: Captioner, images: torch.Tensor, prompts: Sequence[str]) -> list[Read]:
    """Score (B, 3, H, W) images in [0, 1] against a prompt each; a word's log p is the sum over its tokens."""
    log_p, counts = captioner.log_likelihood(images, prompts)
    found = []
    for prompt, own, counted in zip(prompts, log_p.cpu(), counts.cpu(), strict=True):
        pieces, scores = captioner.pieces(prompt), own[counted].tolist()
        assert len(pieces) == len(scores), (prompt, pieces)
        groups = words_of(pieces)
        words = ["".join(pieces[i] for i in group).strip() for group in groups[:-1]]
        found.append(Read([*words, END], [round(sum(scores[i] for i in group), 4) for group in groups]))
    return found


def read_images(
    own: OneCaptioner, computing: Computing, batch_size: int, images: Sequence[tuple[Path, str]]
) -> list[Read]:
    """How a captioner reads the prompt of each image; (path, prompt) pairs, images of one size.

    Raises:
        UserError: if an image is missing or unreadable.
    """
    if not images:
        return []
    device, dtype = choose_device(computing.device), DTYPES[computing.precision]
    captioner = load_captioner(own, device, dtype)
    found: list[Read] = []
    for part in in_batches(images, batch_size, "words"):
        pixels = pixels_of([path for path, _ in part], device)
        found += read_words(captioner, pixels, [prompt for _, prompt in part])
    return found
