"""What stands in a corpus, for a person to look at: lengths in tokens, languages, examples."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

from transformers import PreTrainedTokenizerBase

from comat.storage.prompt_language import language

CHUNK = 1000
"""Prompts tokenized at once: what the tokenizers keep of each is far larger than its tokens."""
EXAMPLES = 3


def token_counts(tokenizers: Sequence[PreTrainedTokenizerBase], texts: Sequence[str]) -> Iterator[list[int]]:
    """The tokens of each text by each tokenizer, start and end included."""
    for at in range(0, len(texts), CHUNK):
        part = list(texts[at : at + CHUNK])
        ids = [tokenizer(part, verbose=False, return_attention_mask=False).input_ids for tokenizer in tokenizers]
        yield from ([len(own) for own in row] for row in zip(*ids, strict=True))


def spread(lengths: Sequence[int]) -> dict[str, int]:
    """Median, 95th percentile and maximum (by nearest rank) of at least one length."""
    ordered = sorted(lengths)
    ranks = {"median": 50, "p95": 95, "max": 100}
    return {name: ordered[-(-rank * len(ordered) // 100) - 1] for name, rank in ranks.items()}


def languages(texts: Sequence[str]) -> dict[str, int]:
    """How many prompts are of which language, most first."""
    return dict(Counter(map(language, texts)).most_common())


def examples(rows: Sequence[dict]) -> dict[str, list[str]]:
    """For each source the first, the middle and the last of its prompts."""
    texts: dict[str, list[str]] = {}
    for row in rows:
        texts.setdefault(row["source"], []).append(row["text"])
    return {name: list(dict.fromkeys([own[0], own[len(own) // 2], own[-1]])) for name, own in texts.items()}
