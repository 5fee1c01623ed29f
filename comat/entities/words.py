"""The words of a parsed prompt and what each can be in a noun phrase, as the parser has it.

`corrections.py` mends what small parsers get wrong in the language of prompts.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum, auto
from functools import cached_property

from spacy.tokens import Doc, Token

from comat.entities.dictionary import Dictionary, dictionary_of
from comat.entities.lexicon import (
    COLOURS,
    COMPOUNDS,
    DETERMINERS,
    FIRST_PARTS,
    HYPHENS,
    INTENSIFIERS,
    PREPOSITIONS,
    QUANTIFIERS,
    SIDES,
    SIZES,
    SUFFIXES,
    UNITS,
)

_ENDS = {"ADP", "AUX", "CCONJ", "PUNCT", "SCONJ", "PART", "DET", "PRON"}
MEASURE = re.compile(r"\d+(?:k|fps|p|dpi)")
"""A size of the picture that stands by itself ("render 8k"), and completes no noun before it."""
_COUNTED = re.compile(r"\d+(?=[^\W\d_]{3})")


class Kind(Enum):
    NOUN = auto()
    ADJECTIVE = auto()
    NUMERAL = auto()
    ADVERB = auto()
    LINK = auto()  # what stands between adjectives: "red, blue and white"
    OTHER = auto()


IN_PHRASE = (Kind.NOUN, Kind.ADJECTIVE, Kind.ADVERB, Kind.NUMERAL)
"""Of the words inside a noun phrase, between its determiner and its end."""


@dataclass
class Word:
    """One word; hyphenated words are one. `token` is its last, by which the parser treats it."""

    first: Token
    token: Token
    kind: Kind
    closes: bool
    """Whether the noun phrase before it ends there."""
    name: int | None = None
    """Which of the artists' names in the prompt it is a part of."""

    @property
    def span(self) -> tuple[int, int]:
        """Character offsets in the prompt."""
        return self.first.idx, self.token.idx + len(self.token)

    @cached_property
    def text(self) -> str:
        return self.token.text if self.first.i == self.token.i else self.token.doc[self.first.i : self.token.i + 1].text

    @cached_property
    def lower(self) -> str:
        return self.text.lower().replace(" - ", "-")

    @property
    def parts(self) -> list[Word]:
        """Itself, or its words where blanks stand around the hyphens ("sci - fi"), as tokenizers leave them."""
        if " " not in self.text:
            return [self]
        tokens = [token for token in self.token.doc[self.first.i : self.token.i + 1] if token.text not in HYPHENS]
        return [Word(token, token, self.kind, False) for token in tokens]

    @property
    def singular(self) -> str:
        """What the segmenter is asked for: the noun in lower case, singular if there is one; "girl" of "1girl"."""
        before, last = (
            self.text[: self.token.idx - self.span[0]].lower().replace(" - ", "-"),
            _COUNTED.sub("", self.token.lower_),
        )
        if self.token.tag_ == "NNP":
            return before + last  # "Mars"
        is_plural = self.token.tag_ in ("NNS", "NNPS") or self.token.pos_ not in ("NOUN", "PROPN")
        return before + self.dictionary.singular(last, is_plural)

    @property
    def dictionary(self) -> Dictionary:
        return dictionary_of(self.token.vocab)


def words_of(doc: Doc) -> list[Word]:
    """The words of `doc` in order."""
    words, first = [], 0
    tokens = list(doc)  # spaCy makes a token anew each time that it is asked for
    for i, token in enumerate(tokens):
        if not _goes_on(tokens, i):
            words.append(Word(tokens[first], token, _kind(tokens[first : i + 1]), _closes(tokens[first])))
            first = i + 1
    for place, word in enumerate(words):
        if word.lower in PREPOSITIONS:
            word.closes = True
        elif word.lower == "little" and _is_size(words, place):
            word.kind = Kind.ADJECTIVE
        elif _is_relation(words, place):
            word.kind, word.closes = Kind.OTHER, True
    return words


def _closes(token: Token) -> bool:
    """By its tag, unless it is a pronoun to the tagger alone: "the white bookshelf"."""
    is_pronoun = token.is_stop or token.lower_ not in dictionary_of(token.vocab).nouns
    return token.pos_ in _ENDS and (token.pos_ != "PRON" or is_pronoun)


def _goes_on(tokens: Sequence[Token], i: int) -> bool:
    """Whether a hyphen binds token `i` to the next, or a number is written together with its unit ("4K")."""
    if i + 1 == len(tokens):
        return False
    if tokens[i].whitespace_:
        is_compound = (tokens[i].lower_, tokens[i + 1].lower_) in COMPOUNDS
        return is_compound or _is_taken_apart(tokens, i if tokens[i].text in HYPHENS else i + 1)
    if tokens[i].is_digit and (tokens[i + 1].lower_ in UNITS or _is_decade(tokens, i)):
        return True
    return tokens[i + 1].text in HYPHENS or (tokens[i].text in HYPHENS and i > 0 and not tokens[i - 1].whitespace_)


def _is_decade(tokens: Sequence[Token], i: int) -> bool:
    """ "a 1970's car"."""
    return tokens[i].text.endswith("0") and len(tokens[i]) > 1 and tokens[i + 1].lower_ in ("'s", "’s")


def _is_taken_apart(tokens: Sequence[Token], hyphen: int) -> bool:
    """ "sci - fi", "award - winning", "8 - bit", not "a dog - a cat", "a woman - detailed": a hyphen between blanks."""
    if not 0 < hyphen < len(tokens) - 1 or tokens[hyphen].text != "-" or not tokens[hyphen - 1].whitespace_:
        return False
    left, right = tokens[hyphen - 1], tokens[hyphen + 1]
    if not tokens[hyphen].whitespace_ or not right.is_alpha or right.lower_ in DETERMINERS | PREPOSITIONS | {"up"}:
        return False
    lower = left.lower_
    opens = lower in FIRST_PARTS | SIZES | COLOURS or left.is_digit
    dictionary = dictionary_of(left.vocab)
    is_participle = right.tag_ in ("VBG", "VBN") or right.lower_.endswith("ed")
    return opens or is_participle or right.lower_ in SUFFIXES or dictionary.is_known(f"{lower}-{right.lower_}")


def _is_relation(words: list[Word], place: int) -> bool:
    """ "left of", "next to": a preposition of two words; in "on the left of" left is a noun."""
    seconds = SIDES.get(words[place].lower, ())
    follows = place + 1 < len(words) and words[place + 1].lower in seconds
    return follows and ("of" not in seconds or place == 0 or words[place - 1].lower not in DETERMINERS)


def _is_size(words: list[Word], place: int) -> bool:
    """ "a little dog", "cute little dog", "of little details", not "a little water", "little water"."""
    following = words[place + 1] if place + 1 < len(words) else None
    if following is None or following.kind not in (Kind.NOUN, Kind.ADJECTIVE):
        return False
    before = words[place - 1] if place else None
    is_listed = before is not None and (before.kind is Kind.ADJECTIVE or before.token.text == ",")
    return following.token.tag_ == "NNS" or (before is not None and before.lower in DETERMINERS) or is_listed


def _kind(tokens: Sequence[Token]) -> Kind:
    """By the tags of the last token, and by what words mean in prompts."""
    token, lower = tokens[-1], tokens[-1].lower_
    if len(tokens) > 1 and (lower in ("'s", "’s") or (tokens[0].lower_, lower) in COMPOUNDS):
        return Kind.ADJECTIVE
    if len(tokens) > 1 and any(part.pos_ == "ADP" for part in tokens):
        return Kind.ADVERB  # side-by-side
    if len(tokens) > 1 and lower in UNITS:
        return Kind.NOUN
    if _COUNTED.match(lower) and lower[-1:].isalpha():
        return Kind.NOUN  # 1girl
    is_number = token.pos_ == "NUM" and not (token.is_alpha and lower in dictionary_of(token.vocab).nouns)
    if token.like_num or (is_number and any(c.isalnum() for c in lower)) or lower == "dozen":
        return Kind.NUMERAL
    if lower in QUANTIFIERS and len(tokens) == 1:
        return Kind.OTHER
    if lower in INTENSIFIERS:
        return Kind.ADVERB
    if lower == "yet":
        return Kind.LINK
    if len(tokens) > 1 and (lower in SUFFIXES or token.tag_ in ("VBN", "VBD")):
        return Kind.ADJECTIVE  # heart-shaped
    if lower in COLOURS or token.pos_ == "ADJ" or _stands_before_noun(token):
        return Kind.ADJECTIVE
    if token.pos_ in ("NOUN", "PROPN", "NUM"):
        return Kind.NOUN if any(c.isalpha() for c in token.text) else Kind.OTHER
    if token.pos_ == "ADV":
        return Kind.ADJECTIVE if _is_adjective_in_ly(token) else Kind.ADVERB
    return Kind.LINK if token.text == "," or lower in ("and", "or", "yet", "but") else Kind.OTHER


def _is_adjective_in_ly(token: Token) -> bool:
    """ "a frilly skirt"."""
    dictionary = dictionary_of(token.vocab)
    return (
        token.lower_.endswith("ly")
        and token.lower_ in dictionary.adjectives
        and (token.lower_ not in dictionary.adverbs)
    )


def _stands_before_noun(token: Token) -> bool:
    """ "a parked car", "rustling leaves": a participle that the parser gives to a noun on its right."""
    if token.tag_ == "VBG" and token.i > 0 and token.nbor(-1).pos_ in ("NOUN", "PROPN"):
        return False  # "a light changing colors"
    return token.tag_ in ("VBN", "VBG") and token.dep_ in ("amod", "compound") and token.head.i > token.i
