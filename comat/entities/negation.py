"""What a prompt says is not there: things ("without a mirror", "no dogs or cats"), attributes ("not red but blue")."""

from __future__ import annotations

from collections.abc import Iterator

from comat.entities.lexicon import BUILT, DETERMINERS
from comat.entities.words import IN_PHRASE, Kind, Word

_OF_THINGS = {"without", "no", "sans", "lacking", "lacks", "lack", "neither", "nor", "non"}
_OF_TWO = {("instead", "of"), ("rather", "than"), ("free", "of"), ("free", "from"), ("devoid", "of"), ("empty", "of"),
           ("absence", "of"), ("lack", "of"), ("bare", "of")}  # fmt: skip
_NOT = {"not", "n't", "n’t", "never", "isnt", "arent", "doesnt", "dont", "hasnt", "cannot"}
_NO_NEGATION = {"only", "just", "far", "long", "yet", "too", "unlike", "entirely", "all"}
_LINKS = {"or", "nor"}
_WEAK_LINKS = {"and", ","}


def negated(words: list[Word]) -> set[int]:
    """The places of all words that stand under a negation."""
    places: set[int] = set()
    for place in range(len(words)):
        start = _scope_after(words, place)
        if start is not None:
            scope = set(_scope(words, start))
            within = words[place].lower in _NOT and place and words[place - 1].lower in DETERMINERS
            places |= {at for at in scope if not within or words[at].kind is not Kind.NOUN}  # "a not very big dog"
    return places


def _scope_after(words: list[Word], place: int) -> int | None:
    """Where the scope of a negation at `place` begins; None if there is none."""
    word, following = words[place].lower, words[place + 1].lower if place + 1 < len(words) else ""
    if word in _OF_THINGS and not (word == "no" and _is_in_phrase(words, place)):
        return place + 1
    if (word, following) in _OF_TWO:
        return place + 2
    if word == "missing" and following in DETERMINERS and place and words[place - 1].kind is Kind.NOUN:
        return place + 1
    if word not in _NOT or following in _NO_NEGATION:
        return None
    return _after_verb(words, place + 1)


def _is_in_phrase(words: list[Word], place: int) -> bool:
    """ "a no entry sign"; "no one", "no longer" negate no thing."""
    before = words[place - 1].lower if place else ""
    following = words[place + 1].lower if place + 1 < len(words) else ""
    return before in DETERMINERS or following in ("one", "matter", "doubt")


def _after_verb(words: list[Word], place: int) -> int | None:
    """The object of a negated verb, if it is no certain thing: in "not eating its bone" there may be a bone."""
    at = place
    while at < len(words) and (words[at].token.pos_ in ("VERB", "AUX", "ADV") and words[at].kind is not Kind.NOUN):
        if words[at].kind is Kind.ADJECTIVE:
            break
        at += 1
    if at > place and words[at - 1].token.lemma_ in BUILT and words[at : at + 1] and words[at].lower in ("of", "from"):
        return at + 1  # "not made of glass"
    is_certain = at < len(words) and words[at].lower in DETERMINERS - {"a", "an", "any", "another"}
    return None if at > place and is_certain else at


def _scope(words: list[Word], start: int) -> Iterator[int]:
    """The phrase from `start` on, and what is linked to it; "and" and commas link only what has no article."""
    at = start
    while at < len(words) and _belongs(words[at]):
        while at < len(words) and _belongs(words[at]):
            yield at
            at += 1
        link = words[at].lower if at < len(words) else ""
        if link in _LINKS:
            at += 1
        elif link in _WEAK_LINKS and _goes_on(words, at):
            at += 1 + (at + 1 < len(words) and words[at + 1].lower in _LINKS)
        else:
            return


def _belongs(word: Word) -> bool:
    return word.kind in IN_PHRASE or word.lower in DETERMINERS or word.lower in ("any", "single", "visible", "longer")


def _goes_on(words: list[Word], link: int) -> bool:
    """Whether a list goes on after a comma, up to an "or", or after "and", with a bare noun."""
    after = words[link + 1 :]
    if words[link].lower == "and":
        end = next((i for i, word in enumerate(after) if word.kind not in IN_PHRASE), len(after))
        bare = 0 < end <= 2 and after[end - 1].kind is Kind.NOUN
        return bare and (end == len(after) or after[end].token.pos_ not in ("VERB", "AUX"))
    for word in after:
        if word.lower in _LINKS:
            return True
        if not _belongs(word) and word.lower != ",":
            return False
    return False
