"""What small parsers get wrong in the language of prompts, mended by the neighbouring words and by what a word can be.

They learn from news and web text. Of prompts they misread bare nouns ("a round pendant": an adjective; "hose on table":
a verb), shapes and materials ("a triangular bookshelf": two nouns), lists and participles.
"""

from __future__ import annotations

from spacy.tokens import Doc

from comat.entities.attributes_before import (
    is_adjective_after_all,
    is_attribute,
    is_linked,
    is_listed_participle,
    is_of_materials,
)
from comat.entities.bare_nouns import must_be_noun
from comat.entities.lexicon import ACTIONS, COLOURS, COLOURS_THAT_ARE_THINGS, WORKS_IN_ING
from comat.entities.missing_verbs import is_missing_verb
from comat.entities.neighbours import (
    ARTICLES,
    FRAGMENT_ENDS,
    ends_phrase,
    is_before_link,
    is_opened,
    start_of_modifiers,
    starts_fragment,
)
from comat.entities.nouns_or_verbs import is_participle, is_verb_after_all, takes_object
from comat.entities.run_together import terms_in
from comat.entities.word_classes import by_dictionary
from comat.entities.words import Kind, Word, words_of


def corrected_words(doc: Doc) -> list[Word]:
    """The words of a parsed prompt, corrected from the last to the first."""
    words = words_of(doc)
    for place, word in enumerate(words):
        kind = by_dictionary(words, place)
        if kind is not None:
            word.kind, word.closes = kind, False
    for place in reversed(range(len(words))):
        words[place].kind = _corrected(words, place)
    _know_names(words)
    return words


def _know_names(words: list[Word]) -> None:
    """ "ross draws", "cgsociety and jesper ejsing": names of artists are one phrase, whatever the tags."""
    for number, term in enumerate(terms_in([word.lower for word in words])):
        if term.kind == "artists":
            for word in words[term.start : term.end]:
                word.kind, word.closes, word.name = Kind.NOUN, False, number


def _corrected(words: list[Word], place: int) -> Kind:
    word, ends = words[place], ends_phrase(words, place)
    before = words[place - 1] if place else None
    if word.kind in (Kind.OTHER, Kind.LINK) and word.closes and word.token.pos_ != "AUX":
        return word.kind
    is_name = _is_name(word, before) and not (ends and starts_fragment(words, place))  # ", Intricate, "
    if word.kind is Kind.NOUN and not is_name and not word.dictionary.is_noun(word.lower):
        word.kind = _without_noun(words, place) or Kind.NOUN
        if word.kind is not Kind.NOUN:
            return word.kind
    if _is_work(words, place):
        return Kind.NOUN
    if not ends and is_attribute(words, place):
        return Kind.ADJECTIVE
    if not ends and word.kind is Kind.NOUN and word.lower in ACTIONS and before and before.kind is Kind.NOUN:
        return Kind.OTHER  # "a girl in a dress fighting monsters"
    if not ends:  # "a mane moves gracefully"
        is_before_adverb = words[place + 1].kind is Kind.ADVERB
        is_verb = is_before_adverb and (is_verb_after_all(words, place) or is_missing_verb(words, place))
        return Kind.OTHER if is_verb else word.kind
    if word.lower in COLOURS:
        if _is_colour_itself(words, place) or _is_surname(words, place):
            return Kind.NOUN
        is_thing = word.lower in COLOURS_THAT_ARE_THINGS and (
            word.token.pos_ in ("NOUN", "PROPN")
            or before is None
            or before.lower in ARTICLES
            or before.kind is Kind.NUMERAL
        )
        return Kind.NOUN if is_thing and not is_linked(words, place) else Kind.ADJECTIVE
    if is_before_link(words, place) and (is_listed_participle(words, place) or is_of_materials(words, place)):
        return Kind.ADJECTIVE
    if word.kind is Kind.NOUN and is_adjective_after_all(words, place):
        return Kind.ADJECTIVE
    if word.kind is Kind.NOUN and takes_object(words, place):
        return Kind.OTHER
    if word.kind is Kind.NOUN:
        is_verb = is_participle(word, before) or is_verb_after_all(words, place) or is_missing_verb(words, place)
        return Kind.OTHER if is_verb else Kind.NOUN
    return Kind.NOUN if must_be_noun(words, place) else word.kind


def _is_name(word: Word, before: Word | None) -> bool:
    """By its tag, unless it is a common word in lower case: not in "hazy, misty light"."""
    follows_name = before is not None and before.token.pos_ == "PROPN"
    return word.token.pos_ == "PROPN" and (follows_name or not word.text.islower())


def _is_work(words: list[Word], place: int) -> bool:
    """ "a matte painting by", "a movie still": a picture, not what somebody does."""
    word, following, before = words[place], words[place + 1 : place + 2], words[max(0, place - 1)]
    if place and word.lower == "still" and before.lower in ("movie", "film", "television"):
        return True
    if place and before.lower == "still" and word.lower in ("frame", "image", "shot"):
        return True
    by = following != [] and following[0].lower in ("by", "of")
    opens = before.kind in (Kind.NOUN, Kind.ADJECTIVE) or before.token.text in FRAGMENT_ENDS
    return place > 0 and by and word.lower in WORKS_IN_ING and opens


def _without_noun(words: list[Word], place: int) -> Kind | None:
    """What a noun of the tagger's is that is none to the dictionary: "crispy", "entwine"; None: unsure."""
    word, start, ends = words[place], start_of_modifiers(words, place), ends_phrase(words, place)
    if word.lower in word.dictionary.adverbs and word.lower not in word.dictionary.adjectives:
        return Kind.ADVERB  # "the floor creaks underfoot"
    follows_noun = any(modifier.kind is Kind.NOUN for modifier in words[start:place])
    if ends and is_opened(words, start) and not follows_noun and not is_before_link(words, place):
        return Kind.NOUN  # "a podcast", "a striking visual"
    if word.lower in word.dictionary.adjectives:
        return Kind.ADJECTIVE
    is_verb = start == place and word.dictionary.is_verb(word.lower) and not word.lower.endswith("ing")
    return Kind.OTHER if ends and (follows_noun or is_verb) else None


def _is_colour_itself(words: list[Word], place: int) -> bool:
    """ "the bright white of the bat"."""
    start = start_of_modifiers(words, place)
    return words[place + 1 : place + 2] != [] and words[place + 1].lower == "of" and is_opened(words, start)


def _is_surname(words: list[Word], place: int) -> bool:
    """ "by alex grey", "Alex Grey"."""
    before = words[place - 2 : place]
    follows_name = place > 0 and words[place - 1].token.pos_ == "PROPN" and words[place - 1].text.istitle()
    if follows_name and words[place].text.istitle():
        return True
    is_name = len(before) == 2 and before[0].lower in ("by", "and", ",") and before[1].token.pos_ == "PROPN"
    return is_name and before[1].kind is Kind.NOUN and any(word.lower == "by" for word in words[:place])
