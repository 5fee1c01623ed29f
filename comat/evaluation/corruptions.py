"""Captions made wrong in one way, by exchanging attributes, a relation's sides, or one and many (App. B.3).

A corrupted caption is to differ in what it says, not in how well it is written: articles and a capital at the start
follow the new words, and a noun whose number a verb shows ("the dog runs") keeps it. What cannot be corrupted so is
left out.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from itertools import combinations, pairwise

import inflect
from spacy.tokens import Doc, Token
from spacy.tokens import Span as Words

from comat.entities.lexicon import PLURAL_ALONE
from comat.entities.parse import ParsedEntity, Span

_ENGLISH = inflect.engine()
_ARTICLE_BEFORE = re.compile(r"\ban?(?=\s+$)", re.IGNORECASE)
_SYMMETRIC = {"adjacent", "alongside", "among", "and", "beside", "between", "by", "close", "near", "next", "opposite"}
_SYMMETRIC |= {"together", "with"}
"""Words of relations that hold as well the other way round."""
_BEFORE_A_PHRASE = ("ADP", "CCONJ", "PUNCT", "VERB")
"""What else stands before the words of a phrase, as in "many cats" and "very small cats", belongs to it."""


def swap_attributes(doc: Doc, entities: Sequence[ParsedEntity]) -> str | None:
    """The first two entities whose attributes differ exchange them: "a red ball and a blue cube".

    None where there are no two.
    """
    text = doc.text
    for first, second in combinations([e for e in entities if e.attributes], 2):
        a, b = _attributes(first), _attributes(second)
        if a and b and text[slice(*a)].lower() != text[slice(*b)].lower() and _goes_before(a, first, b, second):
            return _exchanged(text, *sorted((a, b)))
    return None


def swap_relation(doc: Doc, entities: Sequence[ParsedEntity]) -> str | None:
    """The first subject and object of a relation change places: "a cat on a table", not "a cat next to a dog".

    None where there is no relation, or it says the same the other way round.
    """
    for first, second in pairwise(entities):
        a, b = _phrase(doc, first), _phrase(doc, second)
        if a and b and _relates(doc, (a[1], b[0])) and not _breaks_agreement(doc, first, second):
            return _exchanged(doc.text, a, b)
    return None


def change_quantity(doc: Doc, entities: Sequence[ParsedEntity]) -> str | None:
    """The first noun that can, from one to two or from many to one: "a cat", "three cats", "cats".

    None where no noun can: "the cat" may be any of many, and a verb may show the number.
    """
    for entity in entities:
        noun = _noun(doc, entity)
        if _verb_shows_number(noun):
            continue
        many = noun.tag_ in ("NNS", "NNPS") or any(word.lower() not in ("one", "1") for word in entity.numerals)
        changed = _as_one(doc, entity) if many else _as_two(doc, entity)
        if changed:
            return changed
    return None


Corruption = Callable[[Doc, Sequence[ParsedEntity]], str | None]
CORRUPTIONS: dict[str, Corruption] = {
    "attribute": swap_attributes,
    "relation": swap_relation,
    "quantity": change_quantity,
}
"""Each takes a parsed caption and its entities in the order of the text."""


def _words_on(doc: Doc, span: Span) -> Words:
    """The words that stand on some characters of a caption, whole."""
    words = doc.char_span(*span, alignment_mode="expand")
    assert words is not None, (doc.text, span)  # only for characters that the caption does not have
    return words


def _noun(doc: Doc, entity: ParsedEntity) -> Token:
    return _words_on(doc, entity.noun_span)[-1]


def _attributes(entity: ParsedEntity) -> Span | None:
    """From the first attribute to the last; None where the noun stands between them."""
    start, end = entity.attribute_spans[0][0], entity.attribute_spans[-1][1]
    return None if start < entity.noun_span[0] < end else (start, end)


def _goes_before(a: Span, first: ParsedEntity, b: Span, second: ParsedEntity) -> bool:
    """Whether both stand on the same side of their nouns, without overlap: "a cube made of red" is no English."""
    same_side = (a < first.noun_span) == (b < second.noun_span)
    return same_side and (a[1] <= b[0] or b[1] <= a[0])


def _start(entity: ParsedEntity) -> int:
    """Where the phrase begins, without its article."""
    return min(start for start, _ in (entity.noun_span, *entity.attribute_spans, *entity.numeral_spans))


def _word_before(doc: Doc, at: int) -> Token | None:
    first = _words_on(doc, (at, at + 1))[0]
    return first.nbor(-1) if first.i else None


def _phrase(doc: Doc, entity: ParsedEntity) -> Span | None:
    """The whole phrase with its article or "his"; None where words of it are no part of the entity."""
    if any(start > entity.noun_span[0] for start, _ in entity.attribute_spans):
        return None
    start = _start(entity)
    before = _word_before(doc, start)
    if before is not None and (before.pos_ == "DET" or before.tag_ == "PRP$"):
        start = before.idx
    return (start, entity.noun_span[1]) if _begins(doc, start) else None


def _begins(doc: Doc, at: int) -> bool:
    """Whether a phrase begins there."""
    before = _word_before(doc, at)
    return before is None or before.pos_ in _BEFORE_A_PHRASE


def _relates(doc: Doc, between: Span) -> bool:
    """Whether the words between two phrases are a relation from the first to the second."""
    words: Words | None = doc.char_span(*between, alignment_mode="contract") if between[0] < between[1] else None
    if not words or any(word.pos_ in ("CCONJ", "PUNCT") for word in words):
        return False
    said = {word.lower_ for word in words}
    return said != {"of"} and not said & _SYMMETRIC and any(word.pos_ in ("ADP", "VERB") for word in words)


def _verb_shows_number(noun: Token) -> bool:
    """ "The dog runs", "dogs that are wet", "there is a dog"."""
    verbs = [noun.head] if noun.dep_ in ("nsubj", "nsubjpass", "attr") else []
    verbs += [child for child in noun.rights if child.dep_ == "relcl"]
    finite = [word for verb in verbs for word in (verb, *verb.lefts) if word.morph.get("VerbForm", []) == ["Fin"]]
    return any(word.morph.get("Tense", []) == ["Pres"] or word.lemma_ == "be" for word in finite)


def _breaks_agreement(doc: Doc, first: ParsedEntity, second: ParsedEntity) -> bool:
    nouns = [_noun(doc, entity) for entity in (first, second)]
    return nouns[0].tag_ != nouns[1].tag_ and any(_verb_shows_number(noun) for noun in nouns)


def _as_two(doc: Doc, entity: ParsedEntity) -> str | None:
    """ "a cat", "one cat" → "two cats"."""
    before = _word_before(doc, _start(entity))
    if entity.numerals:
        number = entity.numeral_spans[0]
    elif before is not None and before.lower_ in ("a", "an"):
        number = before.idx, before.idx + len(before)
    else:
        return None
    return _replaced(doc.text, [(number, "two"), (entity.noun_span, _ENGLISH.plural_noun(entity.noun))])


def _as_one(doc: Doc, entity: ParsedEntity) -> str | None:
    """ "three cats", "cats" → "a cat"; not "many cats", "the cats", "a pair of cats", "jeans"."""
    start, (noun_start, noun_end) = _start(entity), entity.noun_span
    before = _word_before(doc, start)
    if not _begins(doc, start) or (before is not None and before.lower_ == "of"):
        return None
    if _noun(doc, entity).lower_ in PLURAL_ALONE:
        return None
    noun = _ENGLISH.singular_noun(entity.noun) or entity.noun
    rest = entity.numeral_spans[-1][1] if entity.numerals else start
    words = _uncapitalised(doc.text[rest:noun_start].lstrip() + noun, rest)
    return _replaced(doc.text, [((start, noun_end), _ENGLISH.a(words))])


def _exchanged(text: str, first: Span, second: Span) -> str:
    """`text` with the words of two spans exchanged."""
    a, b = text[slice(*first)], text[slice(*second)]
    return _replaced(text, [(first, b), (second, _uncapitalised(a, first[0]))])


def _uncapitalised(words: str, start: int) -> str:
    """Words from `start` of a text as they are written elsewhere."""
    return words[0].lower() + words[1:] if start == 0 and words.split()[0].istitle() else words


def _replaced(text: str, changes: Sequence[tuple[Span, str]]) -> str:
    """`text` with other words at spans in order; an article before them, and a capital at the start, fit the words."""
    result = text
    for (start, end), words in reversed(changes):
        before = result[:start]
        if found := _ARTICLE_BEFORE.search(before):
            before = before[: found.start()] + _ENGLISH.a(words).split()[0] + before[found.end() :]
        result = before + words + result[end:]
    return result[0].upper() + result[1:] if text[0].isupper() else result
