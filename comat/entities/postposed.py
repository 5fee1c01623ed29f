"""Attributes after their noun, by the words alone: "is off-white", "its crust golden", "a trunk, grey and wrinkled"."""

from __future__ import annotations

from comat.entities.lexicon import DETERMINERS, PREPOSITIONS, WITH_A_COMPLEMENT
from comat.entities.words import Kind, Word

_IN_PHRASE = (Kind.NOUN, Kind.ADJECTIVE, Kind.ADVERB, Kind.NUMERAL)

_POSSESSIVES = {"its", "their", "his", "her"}
_ENDS = {",", ".", ";", "and"}


def postposed(words: list[Word], place: int) -> list[Word]:
    """The attributes behind the noun at `place`."""
    return _predicated(words, place) or _absolute(words, place) or _set_off(words, place)


def _predicated(words: list[Word], place: int) -> list[Word]:
    """ "the bugs are dark-blue-grey, almost black": adjectives after "be", where no noun follows them."""
    start = place
    while start and (words[start - 1].kind in _IN_PHRASE or words[start - 1].lower in DETERMINERS):
        start -= 1
    at = place + 2
    if words[place + 1 : place + 2] == [] or words[place + 1].token.lemma_ != "be":
        return []
    if start and words[start - 1].lower in PREPOSITIONS:
        return []  # "the color of the house is …"
    found = []
    while at < len(words) and words[at].kind in (Kind.ADJECTIVE, Kind.ADVERB, Kind.LINK):
        if words[at].kind is Kind.ADJECTIVE and words[at].token.tag_ not in ("VBN", "VBG"):
            found.append(words[at])
        at += 1
    is_phrase = at < len(words) and words[at].kind is Kind.NOUN
    return [] if is_phrase or any(word.lower in WITH_A_COMPLEMENT for word in found) else found


def _absolute(words: list[Word], place: int) -> list[Word]:
    """ "…, its crust golden, …", "with their visors closed"."""
    start = place
    while start and words[start - 1].kind in (Kind.NOUN, Kind.ADJECTIVE):
        start -= 1
    opens = start > 1 and words[start - 1].lower in _POSSESSIVES and words[start - 2].lower in (",", "with")
    at = _past_adverbs(words, place + 1)
    if not opens or at >= len(words) or not _ends(words, at + 1):
        return []
    is_participle = words[start - 2].lower == "with" and words[at].token.tag_ == "VBD"  # no verb follows "with"
    return [words[at]] if is_participle or _is_attribute(words[at]) else []


def _set_off(words: list[Word], place: int) -> list[Word]:
    """ "a trunk, textured and wrinkled, …": two attributes between commas."""
    first = _past_adverbs(words, place + 2)
    second = _past_adverbs(words, first + 2)
    if second >= len(words) or words[place + 1].lower != "," or words[first + 1].lower != "and":
        return []
    both = [words[first], words[second]]
    return both if all(map(_is_attribute, both)) and _ends(words, second + 1) else []


def _past_adverbs(words: list[Word], at: int) -> int:
    while at < len(words) and words[at].kind is Kind.ADVERB:
        at += 1
    return at


def _is_attribute(word: Word) -> bool:
    return word.kind is Kind.ADJECTIVE or word.token.tag_ == "VBN"


def _ends(words: list[Word], at: int) -> bool:
    return at >= len(words) or words[at].lower in _ENDS
