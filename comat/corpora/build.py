"""The corpus: normalised, without duplicates, decontaminated against the held-out prompts, with a report."""

from __future__ import annotations

import hashlib
import string
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

from datasketch import MinHash, MinHashLSH
from tqdm import tqdm

from comat.corpora import READERS
from comat.corpora.readers import Prompt
from comat.errors import UserError
from comat.params import PromptsParams
from comat.randomness import python_random

PERMUTATIONS = 128


def normalise(text: str) -> str:
    """Unicode NFKC, typographic quotes as plain ones, whitespace folded."""
    plain = unicodedata.normalize("NFKC", text).translate({0x2018: "'", 0x2019: "'", 0x201C: '"', 0x201D: '"'})
    return " ".join(plain.split())


def folded(text: str) -> str:
    """What makes two prompts the same: no case, no punctuation."""
    return " ".join(text.lower().translate(str.maketrans(string.punctuation, " " * len(string.punctuation))).split())


def prompt_id(text: str, split: str = "train") -> str:
    """16 hexadecimal digits of the normalised text and its split: without decontamination it may stand in both."""
    return hashlib.sha256(f"{split} {text}".encode()).hexdigest()[:16]


def _signature(text: str) -> MinHash:
    words = folded(text).split()
    grams = {" ".join(words[i : i + 3]) for i in range(max(1, len(words) - 2))}
    signature = MinHash(PERMUTATIONS)
    signature.update_batch([gram.encode() for gram in grams])
    return signature


class Contamination:
    """Tells whether a prompt is one of the held-out prompts, or nearly: Jaccard similarity of word 3-grams."""

    def __init__(self, held_out: Iterable[str], threshold: float) -> None:
        texts = list(held_out)
        self._exact = {folded(text) for text in texts}
        self._lsh = MinHashLSH(threshold, PERMUTATIONS) if texts and threshold < 1 else None
        self._threshold, self._signatures = threshold, {}
        for text in texts if self._lsh else []:
            key = folded(text)
            if key not in self._signatures:
                self._signatures[key] = _signature(text)
                self._lsh.insert(key, self._signatures[key])

    def reason(self, text: str) -> str | None:
        """ "in the evaluation", "near an evaluation prompt", or None."""
        if folded(text) in self._exact:
            return "in the evaluation"
        if self._lsh:
            signature = _signature(text)
            near = self._lsh.query(signature)
            if any(signature.jaccard(self._signatures[key]) >= self._threshold for key in near):
                return "near an evaluation prompt"
        return None


def read_sources(params: PromptsParams, seed: int) -> Iterator[tuple[str, Prompt]]:
    """(source, prompt) over all sources, ABC-6K sampled as the parameters say."""
    for source in params.sources:
        prompts = list(READERS[source.format](Path(source.path)))
        if source.format == "abc6k" and 0 < params.abc6k_sample < len(prompts):
            picked = python_random(seed, "abc6k").sample(range(len(prompts)), params.abc6k_sample)
            prompts = [prompts[i] for i in sorted(picked)]
        for prompt in prompts:
            yield source.name, prompt


def build_corpus(params: PromptsParams, seed: int) -> tuple[list[dict], dict]:
    """The rows of `prompts.parquet`, and the report: per source read, kept, and dropped by reason.

    Held-out prompts come first. A training prompt that is held out as well is dropped by decontamination alone.

    Raises:
        UserError: if no training prompt is left.
    """
    found = [(source, prompt, normalise(prompt.text)) for source, prompt in read_sources(params, seed)]
    report = {source.name: {"read": 0, "kept": 0, "dropped": Counter()} for source in params.sources}
    held_out = [text for _, prompt, text in found if prompt.split == "test"]
    contamination = Contamination(held_out if params.decontaminate else [], params.near_duplicate)
    rows, seen = [], set()
    order = sorted(range(len(found)), key=lambda i: (found[i][1].split != "test", i))
    for i in tqdm(order, desc="prompts"):
        source, prompt, text = found[i]
        report[source]["read"] += 1
        key = (prompt.split, folded(text))
        reason = contamination.reason(text) if prompt.split == "train" else None
        if key in seen:
            reason = "duplicate"
        elif not key[1]:
            reason = "no words"
        if reason:
            report[source]["dropped"][reason] += 1
            continue
        seen.add(key)
        report[source]["kept"] += 1
        row = {
            "id": prompt_id(text, prompt.split),
            "text": text,
            "source": source,
            "category": prompt.category,
            "split": prompt.split,
        }
        rows.append(row)
    if not any(row["split"] == "train" for row in rows):
        raise UserError("no training prompt is left: see prompts.sources and prompts.decontaminate in params.yaml")
    splits = Counter(row["split"] for row in rows)
    total = {"train": splits["train"], "test": splits["test"]}
    sources = {name: {**entry, "dropped": dict(sorted(entry["dropped"].items()))} for name, entry in report.items()}
    return rows, {"total": total, "sources": sources}
