"""What stands around a word: where its noun phrase begins and ends, and what opens it."""

from __future__ import annotations

from comat.entities.lexicon import ATTRIBUTES, COLOURS_THAT_ARE_THINGS, DETERMINERS, PREPOSITIONS, SIDES
from comat.entities.words import Kind, Word

ARTICLES = {"a", "an"}
_OF_VERBS = ("NN", "NNS", "VBZ", "VBP", "VBD", "VBN", "VBG", "MD")
_BEFORE_BARE_NOUNS = {"and", *PREPOSITIONS} - {"by", "for"}
_STOPS = {".", "!", "?"}
FRAGMENT_ENDS = {",", ";", ":", ".", "—", "–", "-", "|", "/", "!", "?", "(", "\n"}


def ends_phrase(words: list[Word], place: int) -> bool:
    """Whether no word of the same noun phrase can follow."""
    if place + 1 == len(words):
        return True
    following = words[place + 1]
    is_verb = following.kind is Kind.OTHER and following.token.tag_ in _OF_VERBS
    is_misread = words[place].token.pos_ not in ("NOUN", "PROPN") or words[place].lower in COLOURS_THAT_ARE_THINGS
    return (following.closes and following.kind is not Kind.NOUN) or (is_verb and is_misread)


def is_opened(words: list[Word], start: int) -> bool:
    return start > 0 and words[start - 1].lower in DETERMINERS


def is_before_link(words: list[Word], place: int) -> bool:
    """ "smiling and crying masks": what follows the link is an adjective of the same list."""
    following = words[place + 2 : place + 3]
    return bool(following) and words[place + 1].kind is Kind.LINK and following[0].kind is Kind.ADJECTIVE


def follows_article(words: list[Word], place: int) -> bool:
    """Whether nothing but adjectives and nouns, and at least one, stands between "a" and the word."""
    start = start_of_modifiers(words, place)
    return 0 < start < place and words[start - 1].lower in ARTICLES


def start_of_modifiers(words: list[Word], place: int) -> int:
    while place and (words[place - 1].kind in (Kind.NOUN, Kind.ADJECTIVE) or words[place - 1].lower in ATTRIBUTES):
        place -= 1
    return place


def is_adjective(word: Word) -> bool:
    return word.token.pos_ == "ADJ" and word.lower in word.dictionary.adjectives


def starts_fragment(words: list[Word], place: int) -> bool:
    return place == 0 or words[place - 1].token.text in FRAGMENT_ENDS


def opens_compound(words: list[Word], place: int) -> bool:
    """ "stop sign", "paint brush": a verb in its base form that opens a fragment, without an article after it."""
    if place < 0 or place + 1 >= len(words):
        return False
    if not starts_fragment(words, place) and not takes_bare_nouns(words, place - 1):
        return False
    word, following = words[place], words[place + 1]
    nouns = word.dictionary.nouns
    is_base = (word.token.tag_ in ("VB", "VBP", "VBZ") and not word.lower.endswith("s")) or (
        word.lower in nouns and not word.dictionary.is_other(word.lower)
    )
    return is_base and word.lower in nouns and following.lower in nouns and not following.closes


def takes_bare_nouns(words: list[Word], place: int) -> bool:
    """ "dog and stop sign", "a photo of stop sign", "above stop sign", "left to stop sign"."""
    word = words[place].lower
    if word == "to":
        return place > 0 and words[place - 1].lower in SIDES
    return word in _BEFORE_BARE_NOUNS


def follows_clause(words: list[Word], place: int) -> bool:
    """Whether a participle at `place` may go on from a clause: in a sentence with its stop, or after a verb's fragment.

    In lists ("a ship lost in space, nebula, exploding galaxy") only the fragment before matters.
    """
    start, end = place, place
    while start and words[start - 1].lower not in _STOPS:
        start -= 1
    while end < len(words) and words[end].lower not in _STOPS:
        end += 1
    if end < len(words) and _has_finite_verb(words, start, end):
        return True
    fragment = place - 1
    while fragment > start and words[fragment - 1].token.text not in FRAGMENT_ENDS:
        fragment -= 1
    return _has_finite_verb(words, fragment, place)


def _has_finite_verb(words: list[Word], start: int, end: int) -> bool:
    """No sentence starts with its verb."""
    return any(
        word.token.pos_ == "AUX" or (word.token.tag_ in ("VBZ", "VBP", "VBD") and not starts_fragment(words, place))
        for place, word in enumerate(words[start:end], start)
    )
