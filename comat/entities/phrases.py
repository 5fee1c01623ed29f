"""Noun phrases: a noun and the words before it that belong to it.

For nouns before nouns the parser is trusted; adjectives before a noun are its own whatever the parser says, because
small parsers lose them in long phrases and lists ("a worn, faded, brown baseball glove").
"""

from __future__ import annotations

from dataclasses import dataclass, field

from comat.entities.lexicon import (
    COLOURS,
    DETERMINERS,
    ING_THINGS,
    INTENSIFIERS,
    PERCEIVED,
    PICTURES,
    PREPOSITIONS,
    SHAPED,
    SIZES,
)
from comat.entities.words import MEASURE, Kind, Word

_NOUN_MODIFIERS = {"amod", "compound", "nmod", "npadvmod"}
_MAY_PRECEDE = {"DET", "PRON", "ADP", "NUM", "ADV", "VERB", "SCONJ"}


@dataclass
class Phrase:
    """A noun with its attributes and numerals, each in the order of the text."""

    noun: Word
    attributes: list[Word] = field(default_factory=list)
    numerals: list[Word] = field(default_factory=list)


def noun_phrases(words: list[Word]) -> list[Phrase]:
    """The phrases of all nouns that modify no other noun."""
    phrases, place = [], len(words) - 1
    while place >= 0:
        if words[place].kind is not Kind.NOUN:
            place -= 1
            continue
        phrase, place = _phrase(words, place)
        phrases.append(phrase)
    return phrases[::-1]


def _phrase(words: list[Word], place: int) -> tuple[Phrase, int]:
    """The phrase whose noun stands at `place`, and the place to go on from."""
    phrase, at = Phrase(words[place]), place - 1
    while at >= 0:
        word = words[at]
        if word.kind is Kind.NOUN and at < place - 1 and _is_fragment_before(words, at, place):
            break
        if word.kind is Kind.ADJECTIVE or (word.kind is Kind.NOUN and _modifies(words, at, place)):
            phrase.attributes.insert(0, word)
        elif word.kind is Kind.NUMERAL:
            phrase.numerals.insert(0, word)
            if at == 0 or words[at - 1].kind is not Kind.NUMERAL:
                return phrase, _take_before_numeral(words, at - 1, phrase)
        elif not _is_between(words, at):
            break
        at -= 1
    return phrase, at


def _take_before_numeral(words: list[Word], at: int, phrase: Phrase) -> int:
    """ "the old three chairs"; nothing of "a peach and three limes". Returns the place to go on from."""
    start = at
    while start >= 0 and words[start].kind is Kind.ADJECTIVE:
        start -= 1
    if start < 0 or words[start].lower not in DETERMINERS:
        return at
    phrase.attributes[:0] = words[start + 1 : at + 1]
    return start


def _modifies(words: list[Word], at: int, place: int) -> bool:
    """Whether the noun at `at` belongs to the one at `place`.

    The parser binds them, either way; or the last can be nothing but a noun; or it would be a verb that does not agree
    with the first ("a teddy bear", "three teddy bears").
    """
    noun, rest = words[at], words[at + 1 : place + 1]
    if noun.name is not None or rest[0].name is not None:
        return noun.name == rest[0].name or rest[0].name is None
    if rest[0].kind is Kind.LINK or MEASURE.fullmatch(rest[-1].lower):
        return False
    first = noun.token.head if noun.token.dep_ == "conj" else noun.token  # "light and shadow effects"
    modifies = first.dep_ in _NOUN_MODIFIERS and rest[0].first.i <= first.head.i <= rest[-1].token.i
    if modifies or rest[0].token.head == noun.token or rest[-1].token.pos_ not in ("NOUN", "PROPN"):
        return True
    last, is_singular = rest[-1].lower, noun.token.tag_ not in ("NNS", "NNPS")
    if any(word.lower.endswith("ing") and word.lower not in ING_THINGS for word in (noun, *rest)):
        return False  # "a skirt playing tennis"
    if not rest[-1].dictionary.is_other(last):
        return True
    if is_singular and rest[-1].token.tag_ == "NNS" and _follows_no_article(words, at):
        return True
    counted = at > 0 and words[at - 1].kind is Kind.NUMERAL and words[at - 1].lower not in ("one", "1")
    is_base_form = last in rest[-1].dictionary.nouns and not last.endswith(("s", "ed", "ing"))
    return is_singular and ((is_base_form and not _may_have_base_form(words, at)) or counted)


def _follows_no_article(words: list[Word], at: int) -> bool:
    """ "of autumn leaves", "…, cat ears": behind a preposition or comma a noun with a verb would have an article."""
    while at and words[at - 1].kind in (Kind.NOUN, Kind.ADJECTIVE):
        at -= 1
    return at > 0 and (words[at - 1].lower in PREPOSITIONS or words[at - 1].token.text == ",")


def _may_have_base_form(words: list[Word], at: int) -> bool:
    """ "a fork and a glass plate clink", "watching a bird soar": what agrees with a verb in its base form."""
    if any(word.token.lemma_ in PERCEIVED for word in words[max(0, at - 5) : at]):
        return True
    while at and (words[at - 1].kind in (Kind.NOUN, Kind.ADJECTIVE) or words[at - 1].lower in DETERMINERS):
        at -= 1
    return at > 0 and words[at - 1].lower == "and"


def _is_fragment_before(words: list[Word], at: int, place: int) -> bool:
    """ "a female portrait black eyes", "children in rags obese men": a whole phrase before an adjective of the next.

    Not "a low angle full shot", "a one story yellow building": pictures and measures.
    """
    noun, following, last = words[at], words[at + 1], words[place]
    if following.kind is not Kind.ADJECTIVE or following.token.pos_ != "ADJ" or following.first.i != following.token.i:
        return False
    is_measure = at > 0 and words[at - 1].kind is Kind.NUMERAL and noun.token.tag_ != "NNS"
    if last.lower in PICTURES or following.lower in SHAPED or is_measure or noun.name is not None:
        return False
    dictionary = noun.dictionary
    if noun.lower in dictionary.adjectives or not dictionary.knows_as_noun(noun.lower):
        return False
    is_only_adjective = following.lower in dictionary.adjectives and not dictionary.knows_as_noun(following.lower)
    return is_only_adjective or following.lower in COLOURS | SIZES


def _is_fragment(words: list[Word], first: int) -> bool:
    return first == 0 or words[first - 1].lower not in DETERMINERS


def _is_opened_by_and(words: list[Word], first: int, link: int) -> bool:
    """ "…, dark and dull palette", "a body and long, pointed ears": a pair behind a comma or "and"."""
    inner = [word for word in words[first:link] if word.kind is not Kind.ADVERB]
    links = {word.lower for word in (*inner[:-1], words[link])}
    if len(inner) < 2 or inner[-1].kind is not Kind.ADJECTIVE or links != {"and", ","}:
        return False
    last = inner[-1]
    is_adjective = last.lower in SIZES or not last.dictionary.knows_as_noun(last.lower)  # not "dmt and acid, red hair"
    return words[link].lower == "and" or (is_adjective and words[link + 1].kind is Kind.ADJECTIVE)


def _is_between(words: list[Word], at: int) -> bool:
    """An adverb or link between adjectives of one phrase: "very bright", "a peaceful yet eerie scene"."""
    if at == 0 or (words[at + 1].kind is Kind.LINK and words[at].kind is not Kind.LINK):
        return False
    if set(words[at].text) == {"!"}:
        return words[at - 1].kind is Kind.ADJECTIVE or set(words[at - 1].text) == {"!"}  # "a beautiful!! woman"
    if words[at].kind is Kind.ADVERB:
        return words[at + 1].kind is Kind.ADJECTIVE and words[at].token.dep_ == "advmod"
    if words[at].kind is not Kind.LINK:
        return False
    first = at
    while first and words[first - 1].kind in (Kind.ADJECTIVE, Kind.ADVERB, Kind.LINK):
        first -= 1
    if words[at].lower == "and":  # only the end of a list may be a pair: "…, realistic, black and yellow colors"
        comma = next((place for place in range(at - 1, first, -1) if words[place].text == ","), first)
        first = comma if words[first].kind is Kind.LINK and comma > first else first
    if words[first].kind is Kind.LINK and not _is_opened_by_and(words, first, at):
        return False  # "4k, realistic, wallpaper"
    if words[first].kind is Kind.LINK:
        return True
    if words[at].text == "," and words[max(0, at - 2)].lower in INTENSIFIERS and _is_fragment(words, first):
        return False  # ". highly detailed, digital art"
    opens = first == 0 or words[first - 1].token.pos_ in _MAY_PRECEDE or words[first - 1].lower in ("'s", "’s", ".")
    return opens and any(word.kind is Kind.ADJECTIVE for word in words[first:at])
