"""What stands in a corpus, for a person to look at: lengths in tokens, languages, examples."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

from transformers import PreTrainedTokenizerBase

from comat.randomness import python_random, stratified
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


def examples(rows: Sequence[dict], seed: int) -> dict[str, list[str]]:
    """For each source some of its prompts, drawn by seed from its categories."""
    sources: dict[str, list[dict]] = {}
    for row in rows:
        sources.setdefault(row["source"], []).append(row)
    return {name: [row["text"] for row in some(own, seed, name)] for name, own in sources.items()}


def some(rows: Sequence[dict], seed: int, name: str) -> list[dict]:
    """A few rows to look at, of those that are called `name`."""
    return stratified(rows, EXAMPLES, lambda row: row["category"], python_random(seed, "examples", name))
