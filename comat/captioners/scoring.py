"""What the captioners share: prompts behind a prefix as tokens, and the log-likelihood of the tokens that count."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True)
class Texts:
    """Encoded texts, padded on the right: `ids` (B, L), `mask` (B, L) and which are scored, `counts` (B, L) bool."""

    ids: Tensor
    mask: Tensor
    counts: Tensor


def encode(
    tokenizer: PreTrainedTokenizerBase, texts: Sequence[str], unscored: int, most: int, device: torch.device
) -> Texts:
    """Encode `texts`, at most `most` tokens each; tokens within the first `unscored` characters do not count.

    Neither do padding and the start token; the end token does, for a caption that should go on is not the prompt.
    """
    encoded, _ = _encode(tokenizer, texts, unscored, most)
    return Texts(encoded.ids.to(device), encoded.mask.to(device), encoded.counts.to(device))


def pieces(tokenizer: PreTrainedTokenizerBase, text: str, unscored: int, most: int) -> list[str]:
    """What each token that counts stands for in `text`, the space before it included; "" for an added end token."""
    texts, ends = _encode(tokenizer, [text], unscored, most)
    found, start = [], unscored
    for end in ends[texts.counts].tolist():
        found.append(text[start:end] if end else "")
        start = max(start, end)
    return found


def _encode(tokenizer: PreTrainedTokenizerBase, texts: Sequence[str], unscored: int, most: int) -> tuple[Texts, Tensor]:
    """The texts, and the character at which each token ends (B, L)."""
    encoded = tokenizer(
        list(texts),
        padding=True,
        padding_side="right",
        truncation=True,
        max_length=most,
        return_offsets_mapping=True,
        return_tensors="pt",
    )
    mask = encoded.attention_mask
    ends = encoded.offset_mapping[..., 1]
    # Special tokens that the tokenizer adds itself have the empty span (0, 0).
    added_at_end = (ends == 0) & (torch.arange(ends.shape[1]) > 0)
    counts = mask.bool() & ((ends > unscored) | added_at_end)
    counts[:, 0] = False
    return Texts(encoded.input_ids, mask, counts), ends


def token_log_likelihood(logits: Tensor, texts: Texts) -> tuple[Tensor, Tensor]:
    """log p of each token after the first and which of them count, both (B, N); zero where they do not.

    Args:
        logits: (B, N + 1, V), at the last N + 1 positions of `texts`; in float32 whatever the model computes in.
    """
    ids, counts = (x[:, x.shape[1] - logits.shape[1] + 1 :] for x in (texts.ids, texts.counts))
    scores = logits[:, :-1].float().log_softmax(-1).gather(-1, ids[..., None]).squeeze(-1)
    return scores.masked_fill(~counts, 0.0), counts
