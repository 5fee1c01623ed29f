"""Whether a training prompt is an evaluation prompt, or nearly one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from datasketch import MinHash, MinHashLSH

from comat.corpora.text import folded
from comat.storage.tables import EVALUATION_PROMPTS, read_table

BANDS, ROWS = 64, 2
"""Of the MinHash signatures. A pair of similarity s is overlooked with probability (1 - s^2)^64: 1e-8 at 0.5, and 1e-5
at 0.4, the least that `prompts.near_duplicate` may be."""


@dataclass(frozen=True)
class Match:
    """The evaluation prompt that a prompt is ("exact") or nearly is ("near"), and the list that it stands in."""

    kind: str
    list: str
    text: str


def _grams(key: str) -> frozenset[str]:
    """The word 3-grams of a folded prompt; a shorter one is its own only gram."""
    words = key.split()
    return frozenset(" ".join(words[i : i + 3]) for i in range(max(1, len(words) - 2)))


def _signature(grams: frozenset[str]) -> MinHash:
    signature = MinHash(BANDS * ROWS)
    signature.update_batch([gram.encode() for gram in grams])
    return signature


class Contamination:
    """Compares prompts with evaluation lists: equal when folded, or alike by the Jaccard similarity of word 3-grams.

    MinHash proposes near-duplicates, and the similarity itself decides.
    """

    def __init__(self, lists: Mapping[str, Sequence[str]], threshold: float) -> None:
        """Evaluation prompts by the name of their list, and the similarity from which a prompt counts as near."""
        self._threshold = threshold
        self._known: dict[str, tuple[str, str]] = {}
        for name, texts in lists.items():
            for text in texts:
                self._known.setdefault(folded(text), (name, text))
        self._lsh = MinHashLSH(num_perm=BANDS * ROWS, params=(BANDS, ROWS))
        self._grams: dict[str, frozenset[str]] = {}
        for key in self._known if threshold < 1 else ():
            self._grams[key] = _grams(key)
            self._lsh.insert(key, _signature(self._grams[key]))
        self._some = frozenset().union(*self._grams.values())

    @classmethod
    def of_prompts(cls, folder: Path) -> Contamination:
        """With the lists that the stage prompts has compared its training prompts with."""
        rows, lists = read_table(folder / "evaluation.parquet", EVALUATION_PROMPTS), dict[str, list[str]]()
        for row in rows:
            lists.setdefault(row["list"], []).append(row["text"])
        return cls(lists, min((row["near"] for row in rows), default=1.0))

    def match(self, text: str) -> Match | None:
        """The evaluation prompt that `text` is or nearly is, the most similar one; None if there is none."""
        key = folded(text)
        if key in self._known:
            return Match("exact", *self._known[key])
        grams = _grams(key)
        if self._some.isdisjoint(grams):  # most prompts end here, and need no signature
            return None
        alike = {near: self._similarity(grams, near) for near in self._lsh.query(_signature(grams))}
        best = max(sorted(alike), key=alike.__getitem__, default=None)
        if best is None or alike[best] < self._threshold:
            return None
        return Match("near", *self._known[best])

    def _similarity(self, grams: frozenset[str], key: str) -> float:
        return len(grams & self._grams[key]) / len(grams | self._grams[key])
