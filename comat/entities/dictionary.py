"""What a word can be, whatever the tagger makes of it in a prompt, and its singular.

The words are those of spaCy's own lemmatizer (WordNet's nouns, verbs, adjectives and adverbs, and irregular forms).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

from spacy.language import Language
from spacy.pipeline import Lemmatizer
from spacy.vocab import Vocab

from comat.entities.lexicon import NO_SINGULAR, OTHER_SINGULARS, OTHER_VERBS

_TABLES = ("lemma_index", "lemma_exc")
_PLURALS = (
    ("sses", "ss"),
    ("xes", "x"),
    ("ches", "ch"),
    ("shes", "sh"),
    ("ies", "y"),
    ("s", ""),
    ("es", ""),
    ("ves", "f"),
    ("ves", "fe"),
    ("zzes", "z"),
    ("men", "man"),
)
_VERBS = (("s", ""), ("es", ""), ("ies", "y"), ("ed", ""), ("ed", "e"), ("ied", "y"), ("ing", ""), ("ing", "e"))
_HISSING = ("sses", "xes", "ches", "shes", "zzes")


@dataclass(frozen=True)
class Dictionary:
    """All words in lower case. A word that none of them holds may be anything."""

    nouns: frozenset[str]
    verbs: frozenset[str]
    adjectives: frozenset[str]
    adverbs: frozenset[str]
    irregular_nouns: dict[str, str]
    irregular_verbs: frozenset[str]

    def is_noun(self, word: str) -> bool:
        """Whether it is a noun, in the singular or plural, or a word unknown to the dictionary."""
        return self.knows_as_noun(word) or not self.is_known(word)

    def knows_as_noun(self, word: str) -> bool:
        return word in self.nouns or self._known_singular(word) is not None

    def knows_otherwise(self, word: str) -> bool:
        """Whether it is a noun, an adjective or an adverb, perhaps beside a verb."""
        return self.knows_as_noun(word) or word in self.adjectives or word in self.adverbs

    def is_known(self, word: str) -> bool:
        return self.knows_as_noun(word) or self.is_other(word)

    def is_other(self, word: str) -> bool:
        """Whether it is something else than a noun, perhaps beside."""
        return self.is_verb(word) or word in self.adjectives or word in self.adverbs

    def is_verb(self, word: str) -> bool:
        if word in self.verbs or word in self.irregular_verbs:
            return True
        ends = (end for end in _VERBS if word.endswith(end[0]))
        stems = (word.removesuffix(end) + base for end, base in ends)
        return any(stem in self.verbs or (stem[-1:] == stem[-2:-1] and stem[:-1] in self.verbs) for stem in stems)

    def singular(self, word: str, is_plural: bool) -> str:
        """The singular of a noun; the noun as written where there is none that is surely one.

        is_plural: what the tagger says; asked where both forms may be singulars ("stairs", "glass").
        """
        if word in NO_SINGULAR or (word in self.nouns and not is_plural and word not in self.irregular_nouns):
            return word
        known = self._known_singular(word)
        if known:
            return known
        if word in self.nouns or not is_plural or len(word) < 3 or word.endswith(("ss", "us", "is", "ies")):
            return word
        return word[:-2] if word.endswith(_HISSING) else word.removesuffix("s")

    def _known_singular(self, word: str) -> str | None:
        if word in self.irregular_nouns:
            return self.irregular_nouns[word]
        if word.endswith(("ss", "us", "is")) and word in self.nouns:
            return None
        stems = (word.removesuffix(end) + base for end, base in _PLURALS if word.endswith(end))
        return next((stem for stem in stems if len(stem) > 2 and stem in self.nouns), None)


def bring_dictionary(parser: Language) -> None:
    """Hand the lemmatizer's tables to the vocabulary, which every parsed prompt knows."""
    lemmatizer = parser.get_pipe("lemmatizer") if "lemmatizer" in parser.pipe_names else None
    if isinstance(lemmatizer, Lemmatizer):
        for name in filter(lemmatizer.lookups.has_table, _TABLES):
            parser.vocab.lookups.set_table(name, lemmatizer.lookups.get_table(name))


@lru_cache(maxsize=2)
def dictionary_of(vocab: Vocab) -> Dictionary:
    """The dictionary of a parser's vocabulary; empty, so that all words may be nouns, where it has brought none."""
    index, irregular = (_table(vocab, name) for name in _TABLES)
    words = {kind: frozenset(index.get(kind, ())) for kind in ("noun", "verb", "adj", "adv")}
    plurals = dict(OTHER_SINGULARS)
    for plural, singulars in irregular.get("noun", {}).items():
        if singulars[0] in words["noun"] and singulars[0] != plural:
            plurals.setdefault(plural, singulars[0])
    return Dictionary(
        words["noun"],
        words["verb"] | OTHER_VERBS,
        words["adj"],
        words["adv"],
        plurals,
        frozenset(irregular.get("verb", {})),
    )


def _table(vocab: Vocab, name: str) -> dict:
    if not vocab.lookups.has_table(name):
        return {}
    table = vocab.lookups.get_table(name)
    return {key: table[key] for key in ("noun", "verb", "adj", "adv") if key in table}
