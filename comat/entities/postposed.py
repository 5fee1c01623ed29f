"""Attributes after their noun, by the words alone: "is off-white", "its crust golden", "a trunk, grey and wrinkled"."""

from __future__ import annotations

from comat.entities.lexicon import DETERMINERS, MATERIALS, POSSESSIVES, PREPOSITIONS, WITH_A_COMPLEMENT
from comat.entities.words import IN_PHRASE, Kind, Word

_STATES = MATERIALS | {"vintage"}
_OPEN_OR_CLOSED = {"open", "closed", "shut", "ajar", "agape"}
_ENDS = {",", ".", ";", "and"}


def postposed(words: list[Word], place: int) -> list[Word]:
    """The attributes behind the noun at `place`."""
    return _predicated(words, place) or _absolute(words, place) or _set_off(words, place)


def _predicated(words: list[Word], place: int) -> list[Word]:
    """ "the bugs are dark-blue-grey, almost black": adjectives after "be", where no noun follows them."""
    start = place
    while start and (words[start - 1].kind in IN_PHRASE or words[start - 1].lower in DETERMINERS):
        start -= 1
    at = place + 2
    if words[place + 1 : place + 2] == [] or words[place + 1].token.lemma_ != "be":
        return []
    if start and words[start - 1].lower in PREPOSITIONS:
        return []  # "the color of the house is …"
    found = []
    while at < len(words) and words[at].kind in (Kind.ADJECTIVE, Kind.ADVERB, Kind.LINK):
        if words[at].kind is Kind.ADJECTIVE and _is_state(words[at]):
            found.append(words[at])
        at += 1
    if at < len(words) and _is_bare_predicate(words, place + 2, at):
        return [words[at]]
    is_phrase = at < len(words) and words[at].kind is Kind.NOUN
    return [] if is_phrase or any(word.lower in WITH_A_COMPLEMENT for word in found) else found


def _is_bare_predicate(words: list[Word], start: int, at: int) -> bool:
    """ "the plane is vintage", "the font is sans-serif": to the tagger a noun, but alone and without an article."""
    word = words[at]
    may_be = word.lower in word.dictionary.adjectives or word.lower in _STATES or word.first.i != word.token.i
    is_alone = all(other.kind is Kind.ADVERB for other in words[start:at]) and _ends(words, at + 1)
    return word.kind is Kind.NOUN and word.token.tag_ not in ("NNS", "NNPS") and may_be and is_alone


def _is_state(word: Word) -> bool:
    """ "is well-lit", "is unadorned", not "is filled": no participle of a passive."""
    is_hyphenated = word.first.i != word.token.i
    return word.token.tag_ not in ("VBN", "VBG") or is_hyphenated or word.lower.startswith("un")


def _absolute(words: list[Word], place: int) -> list[Word]:
    """ "…, its crust golden, …", "with their visors closed", "has one eye open"."""
    if _is_opened_or_closed(words, place):
        return [words[place + 1]]
    start = place
    while start and words[start - 1].kind in (Kind.NOUN, Kind.ADJECTIVE):
        start -= 1
    opens = start > 1 and words[start - 1].lower in POSSESSIVES and words[start - 2].lower in (",", "with")
    at = _past_adverbs(words, place + 1)
    if not opens or at >= len(words) or not _ends(words, at + 1):
        return []
    is_participle = words[start - 2].lower == "with" and words[at].token.tag_ == "VBD"  # no verb follows "with"
    return [words[at]] if is_participle or _is_attribute(words[at]) else []


def _is_opened_or_closed(words: list[Word], place: int) -> bool:
    """ "…, mouth open, …", "with eyes closed", "has one eye open"."""
    start = place
    while start and (words[start - 1].kind in IN_PHRASE or words[start - 1].lower in DETERMINERS):
        start -= 1
    before = words[start - 1] if start else None
    opens = before is None or before.lower in ("with", ",", ".") or before.token.lemma_ == "have"
    follows = place + 1 < len(words) and words[place + 1].lower in _OPEN_OR_CLOSED
    return opens and follows and _ends(words, place + 2)


def _set_off(words: list[Word], place: int) -> list[Word]:
    """ "a trunk, textured and wrinkled, …": two attributes between commas."""
    first = _past_adverbs(words, place + 2)
    second = _past_adverbs(words, first + 2)
    if second >= len(words) or words[place + 1].lower != "," or words[first + 1].lower != "and":
        return []
    both = [words[first], words[second]]
    if [word.lower for word in both] == ["black", "white"]:
        return []  # the picture, not the thing
    return both if all(map(_is_attribute, both)) and _ends(words, second + 1) else []


def _past_adverbs(words: list[Word], at: int) -> int:
    while at < len(words) and words[at].kind is Kind.ADVERB:
        at += 1
    return at


def _is_attribute(word: Word) -> bool:
    return word.kind is Kind.ADJECTIVE or word.token.tag_ == "VBN"


def _ends(words: list[Word], at: int) -> bool:
    return at >= len(words) or words[at].lower in _ENDS
