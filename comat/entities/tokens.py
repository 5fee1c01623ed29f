"""From characters to tokens: where the words of an entity are in the encoded prompt."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from transformers import PreTrainedTokenizerBase

from comat.entities.parse import Span


@dataclass(frozen=True)
class Tokens:
    """The tokens that a text encoder reads of a prompt."""

    spans: tuple[tuple[int, Span], ...]
    """Position, start token included, and characters of each token that stands for some."""
    are_cut: bool
    """Whether the prompt goes on behind the last that is read."""

    def of(self, group: Sequence[Span]) -> list[int]:
        """Positions of the tokens of a group of character spans; none of words that truncation cuts off."""
        return sorted({i for i, (start, end) in self.spans for first, last in group if start < last and first < end})


def tokens_of(tokenizer: PreTrainedTokenizerBase, prompts: Sequence[str]) -> list[Tokens]:
    """The tokens of prompts. Offsets of CLIP's tokenizers may include the space around a word."""
    encoded = tokenizer(list(prompts), truncation=True).encodings
    return [
        Tokens(_spans(prompt, one.offsets), bool(one.overflowing))
        for prompt, one in zip(prompts, encoded or (), strict=True)
    ]


def _spans(prompt: str, offsets: Sequence[Span]) -> tuple[tuple[int, Span], ...]:
    spans = []
    for position, (start, end) in enumerate(offsets):
        piece = prompt[start:end]
        words = piece.strip()
        if words:
            start += len(piece) - len(piece.lstrip())
            spans.append((position, (start, start + len(words))))
    return tuple(spans)
