"""Attributes after their noun that are set off from the clause: "its crust golden", "a trunk, grey and wrinkled"."""

from __future__ import annotations

from comat.entities.words import Kind, Word

_POSSESSIVES = {"its", "their", "his", "her"}
_ENDS = {",", ".", ";", "and"}


def postposed(words: list[Word], place: int) -> list[Word]:
    """The attributes behind the noun at `place`."""
    return _absolute(words, place) or _set_off(words, place)


def _absolute(words: list[Word], place: int) -> list[Word]:
    """ "…, its crust golden, …", "with their visors closed"."""
    start = place
    while start and words[start - 1].kind in (Kind.NOUN, Kind.ADJECTIVE):
        start -= 1
    opens = start > 1 and words[start - 1].lower in _POSSESSIVES and words[start - 2].lower in (",", "with")
    at = _past_adverbs(words, place + 1)
    return [words[at]] if opens and at < len(words) and _is_attribute(words[at]) and _ends(words, at + 1) else []


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
