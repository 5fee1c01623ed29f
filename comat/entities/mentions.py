"""Things that are named again: "a chair and a bus; the bus is red", "chair and bus; bus is left to chair"."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from comat.entities.lexicon import PREPOSITIONS
from comat.entities.phrases import Phrase
from comat.entities.words import Kind, Word

_DEFINITE = {"the", "this", "that", "these", "those"}
_ENDS = {".", ";", "!", "?"}
_RESTRICTS = {
    "on",
    "in",
    "at",
    "with",
    "to",
    "from",
    "that",
    "which",
    "who",
    "closest",
    "nearest",
    "furthest",
    "farthest",
}
"""What tells one of several apart: "the dog on the left", "the box that is open"."""


def named_again(words: Sequence[Word], phrases: Sequence[Phrase]) -> set[int]:
    """The places among `phrases` of those that name the one thing of an earlier phrase, and no other one.

    They have the number of the first, no new attribute before the noun, and "the"; or nothing at all, in a later
    sentence or part.
    """
    places = {word.token.i: place for place, word in enumerate(words)}
    first: dict[str, int] = {}
    again: set[int] = set()
    for number, phrase in enumerate(phrases):
        known = first.setdefault(phrase.noun.singular, number)
        if known != number and _is_same(words, phrases[known], phrase, places):
            again.add(number)
    return again


def _is_same(words: Sequence[Word], first: Phrase, phrase: Phrase, places: Mapping[int, int]) -> bool:
    noun = places[phrase.noun.token.i]
    if phrase.numerals or _is_plural(first.noun) != _is_plural(phrase.noun):
        return False
    own = [word for word in phrase.attributes if places[word.token.i] < noun]
    start = min((places[word.token.i] for word in own), default=noun)
    before = words[start - 1].lower if start else "."
    following = words[noun + 1].lower if noun + 1 < len(words) else "."
    if before in _DEFINITE:
        is_new = any(word.lower not in {known.lower for known in first.attributes} for word in own)
        return not is_new and following not in _RESTRICTS
    is_bare = not own and not _is_plural(phrase.noun) and words[start - 1].kind is not Kind.NUMERAL
    between = words[places[first.noun.token.i] : noun]
    has_article = places[first.noun.token.i] > 0 and words[places[first.noun.token.i] - 1].token.pos_ == "DET"
    may_open = before in _ENDS or before in PREPOSITIONS
    return is_bare and may_open and not has_article and any(word.lower in _ENDS for word in between)


def _is_plural(noun: Word) -> bool:
    return noun.singular != noun.lower or noun.token.tag_ in ("NNS", "NNPS")
