"""Verbs that the tagger reads as nouns, in clauses that need one: "as the floor creaks", "the kettle whistles as …"."""

from __future__ import annotations

from comat.entities.lexicon import DETERMINERS
from comat.entities.words import Kind, Word

_CONJUNCTIONS = {"as", "while", "when"}
_BOUNDARIES = {",", ";", ".", ":"} | _CONJUNCTIONS
_DEFINITE = {"the", "its", "their", "his", "her", "three", "two", "four", "five"}
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
    opens = words[start].lower in DETERMINERS or words[start].kind is Kind.NUMERAL
    if not opens or not _may_be_verb(words, start, place):
        return False
    is_first = not any(_may_be_verb(words, start, at) and _ends(words, at) for at in range(start + 1, place))
    needs_verb = _needs_verb(words, start, end) or _is_in_sentence(words, start, end, place)
    return is_first and not _has_verb(words[start:end]) and needs_verb


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


def _is_in_sentence(words: list[Word], start: int, end: int, place: int) -> bool:
    """ "The frame of the building towers over the fence.", "Three people in medieval attire ride from the right.".

    Not every prompt with a stop is a sentence ("A bunch of coffee cups on a table."): the sentence must open with
    "the" or be one of several, and what would else be a compound have its own article.
    """
    has_stop = end < len(words) and words[end].lower == "."
    first, last = start, end
    while first and words[first - 1].lower != ".":
        first -= 1
    if not has_stop or _has_verb(words[first:last]) or place + 1 >= len(words):
        return False
    if words[place + 1].token.pos_ != "ADP" and words[place + 1].lower not in DETERMINERS:
        return False
    if any(word.token.tag_ == "VBG" and word.kind is Kind.OTHER for word in words[first:place]):
        return False  # "Four persons sitting at a dining table with cake."
    at = place - 1
    while at > start and words[at - 1].kind in (Kind.NOUN, Kind.ADJECTIVE):
        at -= 1
    is_base = not words[place].lower.endswith("s")
    is_definite = words[first].lower in _DEFINITE or first > 0
    return is_definite and (is_base or (at > 0 and words[at - 1].lower in DETERMINERS))


def _has_verb(words: list[Word]) -> bool:
    return any(map(_is_finite, words))


def _is_finite(word: Word) -> bool:
    """Also one that was read as a noun, and is mended already."""
    is_mended = word.kind is Kind.OTHER and word.token.tag_ in _NOUNS
    is_verb = word.token.tag_ in _FINITE or word.token.pos_ == "AUX"
    return is_mended or (is_verb and word.kind is not Kind.NOUN)
