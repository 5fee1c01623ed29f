"""The words of a parsed prompt and what each can be in a noun phrase, with corrections for the language of prompts.

Small parsers learn from news and web text. Of prompts they misread bare nouns ("a round pendant": an adjective), shapes
and materials ("a triangular bookshelf": two nouns), lists and participles; the corrections ask for nothing but the
neighbouring words.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, auto

from spacy.tokens import Doc, Span, Token

from comat.entities.lexicon import (
    AFTER_THE_NOUN,
    ATTRIBUTES,
    COLOURS,
    COLOURS_THAT_ARE_THINGS,
    ING_THINGS,
    QUANTIFIERS,
    SHAPES,
)

_HYPHENS = "-‐‑"
_ENDS = {"ADP", "AUX", "CCONJ", "PUNCT", "SCONJ", "PART", "DET", "PRON"}
_ARTICLES = {"a", "an"}


class Kind(Enum):
    NOUN = auto()
    ADJECTIVE = auto()
    NUMERAL = auto()
    ADVERB = auto()
    LINK = auto()  # what stands between adjectives: "red, blue and white"
    OTHER = auto()


@dataclass
class Word:
    """One word; hyphenated words are one. `token` is its last, by which the parser treats it."""

    first: Token
    token: Token
    kind: Kind

    @property
    def span(self) -> tuple[int, int]:
        """Character offsets in the prompt."""
        return self.first.idx, self.token.idx + len(self.token)

    @property
    def text(self) -> str:
        return self.token.text if self.first is self.token else self.token.doc[self.first.i : self.token.i + 1].text

    @property
    def lower(self) -> str:
        return self.text.lower()


def words_of(doc: Doc) -> list[Word]:
    """The words of `doc` in order, corrected."""
    words, first = [], 0
    for i, token in enumerate(doc):
        if not _goes_on(doc, i):
            words.append(Word(doc[first], token, _kind(doc[first : i + 1])))
            first = i + 1
    for place in reversed(range(len(words))):
        words[place].kind = _corrected(words, place)
    return words


def _goes_on(doc: Doc, i: int) -> bool:
    """Whether a hyphen binds token `i` to the next."""
    if i + 1 == len(doc) or doc[i].whitespace_:
        return False
    return doc[i + 1].text in _HYPHENS or (doc[i].text in _HYPHENS and i > 0 and not doc[i - 1].whitespace_)


def _kind(tokens: Span) -> Kind:
    """By the tags of the last token, and by what words mean in prompts."""
    token, lower = tokens[-1], tokens[-1].lower_
    if len(tokens) > 1 and any(part.pos_ == "ADP" for part in tokens):
        return Kind.ADVERB  # side-by-side
    if token.like_num or token.pos_ == "NUM" or lower == "dozen":
        return Kind.NUMERAL
    if lower in QUANTIFIERS:
        return Kind.OTHER
    if lower in COLOURS or token.pos_ == "ADJ" or _stands_before_noun(token):
        return Kind.ADJECTIVE
    if token.pos_ in ("NOUN", "PROPN"):
        return Kind.NOUN if any(c.isalpha() for c in token.text) else Kind.OTHER
    if token.pos_ == "ADV":
        return Kind.ADVERB
    return Kind.LINK if token.text == "," or lower in ("and", "or", "yet", "but") else Kind.OTHER


def _stands_before_noun(token: Token) -> bool:
    """ "a parked car", "rustling leaves": a participle that the parser gives to a noun on its right."""
    if token.tag_ == "VBG" and token.i > 0 and token.nbor(-1).pos_ == "NOUN":
        return False  # "a light changing colors"
    return token.tag_ in ("VBN", "VBG") and token.dep_ in ("amod", "compound") and token.head.i > token.i


def _corrected(words: list[Word], place: int) -> Kind:
    word, ends = words[place], _ends_phrase(words, place)
    before = words[place - 1] if place else None
    if not ends:
        follows = words[place + 1].kind in (Kind.NOUN, Kind.ADJECTIVE)
        is_attribute = word.lower in ATTRIBUTES or _is_listed_participle(words, place)
        return Kind.ADJECTIVE if follows and is_attribute else word.kind
    if word.lower in COLOURS:
        is_thing = word.lower in COLOURS_THAT_ARE_THINGS and word.token.pos_ in ("NOUN", "PROPN")
        return Kind.NOUN if is_thing and not _is_linked(words, place) else Kind.ADJECTIVE
    if word.kind is Kind.NOUN:
        return Kind.OTHER if _is_participle(word, before) or _is_verb(words, place) else Kind.NOUN
    return Kind.NOUN if _must_be_noun(words, place) else word.kind


def _ends_phrase(words: list[Word], place: int) -> bool:
    """Whether no word of the same noun phrase can follow."""
    return place + 1 == len(words) or words[place + 1].first.pos_ in _ENDS


def _is_linked(words: list[Word], place: int) -> bool:
    """ "an orange and black hydrant", not "an orange and a banana"."""
    link, following = words[place + 1 : place + 2], words[place + 2 : place + 3]
    return bool(link and following) and link[0].kind is Kind.LINK and following[0].kind is Kind.ADJECTIVE


def _is_listed_participle(words: list[Word], place: int) -> bool:
    """ "the gentle, rustling leaves", "an oval serving dish": a participle after an article and adjectives."""
    start = place
    listed = (Kind.ADJECTIVE, Kind.ADVERB, Kind.LINK)
    while start and (words[start - 1].kind in listed or words[start - 1].lower in ATTRIBUTES):
        start -= 1
    opened = 0 < start < place and words[start - 1].token.pos_ in ("DET", "PRON")
    return opened and words[place].token.tag_ in ("VBG", "VBN", "VBD")


def _is_participle(word: Word, before: Word | None) -> bool:
    """ "…, barking and squeaking", "a clock ticking": a word in -ing after a comma, "and" or a noun."""
    if before is None or word.token.tag_ != "NN" or not word.lower.endswith("ing") or word.lower in ING_THINGS:
        return False
    return before.kind is Kind.NOUN or (before.kind is Kind.LINK and not any(word.first.lefts))


def _is_verb(words: list[Word], place: int) -> bool:
    """ "a spoon glints": no plural follows "a", unless the grammar is the prompt's own ("a leather shoes")."""
    if words[place].token.tag_ != "NNS" or not _follows_article(words, place):
        return False
    before = words[place - 1]
    return before.kind is Kind.NOUN and before.token.tag_ == "NN" and before.lower not in ATTRIBUTES


def _follows_article(words: list[Word], place: int) -> bool:
    """Whether nothing but adjectives and nouns, and at least one, stands between "a" and the word."""
    start = place
    while start and words[start - 1].kind in (Kind.NOUN, Kind.ADJECTIVE):
        start -= 1
    return 0 < start < place and words[start - 1].lower in _ARTICLES


def _must_be_noun(words: list[Word], place: int) -> bool:
    """The last word of a phrase that has no other noun: after a colour or shape, or after "a" and a modifier.

    "a pink cross", "a round pendant", "a soda can", "Boy in blue": verbs, adjectives, interjections to small parsers.
    """
    word = words[place]
    if place == 0:
        return word.token.pos_ == "INTJ" and len(words) > 1
    if word.lower in QUANTIFIERS | AFTER_THE_NOUN or not word.token.is_alpha:
        return False
    if words[place - 1].lower in COLOURS | SHAPES and word.token.pos_ in ("ADJ", "VERB", "ADV", "AUX", "PRON"):
        return True
    if not _follows_article(words, place):
        return False
    ends_clause = place + 1 == len(words) or words[place + 1].first.pos_ in ("CCONJ", "PUNCT")
    return word.token.tag_ == "JJ" or (word.token.tag_ in ("MD", "VB", "VBP") and ends_clause)
