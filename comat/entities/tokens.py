"""From characters to tokens: where the words of an entity are in the encoded prompt."""

from __future__ import annotations

from collections.abc import Sequence

from transformers import PreTrainedTokenizerBase

from comat.entities.parse import Span


def token_positions(
    tokenizer: PreTrainedTokenizerBase, prompt: str, spans: Sequence[Sequence[Span]]
) -> list[list[int]]:
    """For each group of character spans the positions of its tokens in the encoded prompt, start token included.

    Words that truncation cuts off have no positions. Offsets of CLIP's tokenizers may include the space around a word.
    """
    encoded = tokenizer(prompt, truncation=True, return_offsets_mapping=True)
    offsets = []
    for start, end in encoded.offset_mapping:
        piece = prompt[start:end]
        offsets.append((start + len(piece) - len(piece.lstrip()), start + len(piece.rstrip())))
    return [
        [i for i, (start, end) in enumerate(offsets) if end > start and any(start < b and a < end for a, b in group)]
        for group in spans
    ]
