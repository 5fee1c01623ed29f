"""Verbs that the tagger reads as nouns, in clauses that need one: "as the floor creaks", "the kettle whistles as …"."""

from __future__ import annotations

from comat.entities.lexicon import DETERMINERS
from comat.entities.words import Kind, Word

_CONJUNCTIONS = {"as", "while", "when"}
_BOUNDARIES = {",", ";", ".", ":"} | _CONJUNCTIONS
_FINITE = ("VBZ", "VBP", "VBD", "MD")
_NOUNS, _PLURALS = ("NN", "NNS"), ("NNS", "NNPS")


def is_missing_verb(words: list[Word], place: int) -> bool:
    """Whether the noun at `place`, the last of its phrase, is the verb of a clause that has no other.

    A clause after "as" has one; so has the clause before it, or before ", and" with another clause.
    """
    if not _may_be_verb(words, 0, place):
        return False
    start, end = place, place + 1
    while start and words[start - 1].lower not in _BOUNDARIES:
        start -= 1
    while end < len(words) and words[end].lower not in _BOUNDARIES:
        end += 1
    if words[start].lower not in DETERMINERS or not _may_be_verb(words, start, place):
        return False
    is_first = not any(_may_be_verb(words, start, at) and _ends(words, at) for at in range(start + 1, place))
    return is_first and not _has_verb(words[start:end]) and _needs_verb(words, start, end)


def _may_be_verb(words: list[Word], start: int, place: int) -> bool:
    word, before = words[place], words[place - 1] if place > start else None
    may = word.kind is Kind.NOUN and before is not None and before.kind is Kind.NOUN
    return may and word.dictionary.is_verb(word.lower) and _agrees(words, start, place)


def _ends(words: list[Word], place: int) -> bool:
    return place + 1 < len(words) and (words[place + 1].closes or words[place + 1].kind is Kind.ADVERB)


def _agrees(words: list[Word], start: int, place: int) -> bool:
    """ "-s" after a singular, the base form after a plural or "and"."""
    if words[place].lower.endswith("s"):
        return words[place - 1].token.tag_ not in _PLURALS
    return any(word.lower == "and" or word.token.tag_ in _PLURALS for word in words[start:place])


def _needs_verb(words: list[Word], start: int, end: int) -> bool:
    if start and words[start - 1].lower in _CONJUNCTIONS:
        return True
    after = words[end:]
    joins = after != [] and (after[0].lower in _CONJUNCTIONS or [w.lower for w in after[:2]] == [",", "and"])
    stop = next((at for at, w in enumerate(after) if at > 1 and w.lower in _BOUNDARIES), len(after))
    return joins and _has_verb(after[:stop])


def _has_verb(words: list[Word]) -> bool:
    return any(map(_is_finite, words))


def _is_finite(word: Word) -> bool:
    """Also one that was read as a noun, and is mended already."""
    is_mended = word.kind is Kind.OTHER and word.token.tag_ in _NOUNS
    is_verb = word.token.tag_ in _FINITE or word.token.pos_ == "AUX"
    return is_mended or (is_verb and word.kind is not Kind.NOUN)
