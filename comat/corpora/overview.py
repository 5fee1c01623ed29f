"""What stands in a corpus, for a person to look at: lengths in tokens, languages, examples."""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Iterator, Sequence

from transformers import CLIPTokenizer

from comat.randomness import python_random, stratified

CHUNK = 1000
"""Prompts tokenized at once: what the tokenizers keep of each is far larger than its tokens."""
EXAMPLES = 3
WORDS = {
    "English": "a an the of and in on with is are at by for to its his her from as two next under behind",
    "Dutch": "de het een en van met op naast twee achter voor bij",
    "French": "le la les un une des du et dans sur avec est qui au aux sous deux",
    "German": "der die das und ein eine einen einem einer mit auf im ist dem den zwei unter neben vor",
    "Italian": "il lo la gli un una di che sul sulla nel nella due della del con accanto",
    "Portuguese": "o os um uma com em na da das dos ao dois duas sobre",
    "Spanish": "el la los las un una y en con sobre del de que por dos junto",
}
"""Small words that a sentence of a language can hardly do without."""
_SETS = {language: frozenset(words.split()) for language, words in WORDS.items()}


def token_counts(tokenizers: Sequence[CLIPTokenizer], texts: Sequence[str]) -> Iterator[list[int]]:
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


def language(text: str) -> str:
    """The language of a prompt, guessed from its script and its small words; English where nothing says otherwise."""
    if not text.isascii():
        scripts = Counter(unicodedata.name(c, "?").split()[0].split("-")[0] for c in text if c.isalpha())
        if scripts and (script := scripts.most_common(1)[0][0]) != "LATIN":
            return f"{script.capitalize()} script"
    words = set(text.lower().replace(",", " ").split())
    hits = {language: len(words & small) for language, small in _SETS.items()}
    best = max(hits, key=hits.__getitem__)
    return best if hits[best] > max(1, hits["English"]) else "English"


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
