"""Attributes that stand elsewhere in the clause: predicates, relative clauses, materials."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

from spacy.tokens import Token

from comat.entities.dictionary import dictionary_of
from comat.entities.lexicon import BUILT, HYPHENS, QUANTIFIERS, WITH_A_COMPLEMENT


def predicated(noun: Token) -> Iterator[Token]:
    """ "the car is blue", "a dog that looks wet", "a box full of toys", "a table made of wood"."""
    for child in noun.rights:
        if child.dep_ in ("relcl", "acl") and not _has_own_subject(child):
            yield from _of_verb(child)
        elif child.dep_ == "amod" and child.pos_ == "ADJ" and not _is_apart(noun, child):
            yield from _with_conjuncts(child)
    if noun.dep_ in ("nsubj", "nsubjpass") and noun.head.pos_ != "ADJ":
        yield from _of_verb(noun.head)
        if noun.head.tag_ == "VBN" and noun.head.i and noun.head.nbor(-1).text in HYPHENS:
            yield noun.head  # "the room is well-organized"
    elif noun.dep_ in ("nsubj", "nsubjpass") and not _is_apart(noun, noun.head):
        yield from _with_conjuncts(noun.head)


def _has_own_subject(clause: Token) -> bool:
    """ "a face, where two circles are visible", "a box that a small dog is in", not "a dog that is small"."""
    subjects = [child for child in clause.lefts if child.dep_ in ("nsubj", "nsubjpass")]
    return any(subject.tag_ not in ("WDT", "WP") and subject.lower_ != "that" for subject in subjects)


def _is_apart(noun: Token, adjective: Token) -> bool:
    """Whether it describes something else: "a car, wet asphalt, cinematic", "foliage, detailed, warm", "…, ready"."""
    between = noun.doc[noun.i + 1 : adjective.i]
    if not any(t.is_punct for t in between):
        return False
    has_complement = any(child.dep_ == "prep" for child in adjective.rights)  # "a poster, similar to a painting"
    if has_complement or adjective.lower_ == "ready" or any(t.pos_ in ("NOUN", "PROPN") for t in between):
        return True
    stands_alone = adjective.i + 1 == len(noun.doc) or adjective.nbor().is_punct or adjective.nbor().lower_ == "by"
    return stands_alone and not any(t.pos_ == "AUX" or t.tag_ in ("VBZ", "VBP", "VBD") for t in noun.doc[noun.i :])


def _of_verb(verb: Token) -> Iterator[Token]:
    for child in verb.children:
        is_apart = child.dep_ != "attr" and any(
            token.is_punct for token in verb.doc[verb.i + 1 : child.i]
        )  # "…, ready to go"
        is_adjective = child.pos_ == "ADJ" or (child.tag_ == "VBN" and child.i and child.nbor(-1).text in HYPHENS)
        if child.dep_ in ("acomp", "attr", "oprd") and is_adjective and not is_apart:
            yield from _with_conjuncts(child)
        elif verb.lemma_ in BUILT and child.dep_ == "prep":
            materials = list(_materials(child))
            # "made of veins and muscle tissue": among things nothing is a material.
            yield from materials if not any(map(_is_thing, materials)) else ()


def _materials(preposition: Token) -> Iterator[Token]:
    """ "of oak and glass", "from oak", "out of oak"."""
    for child in preposition.children:
        if child.dep_ == "prep" and preposition.lower_ in ("out", "up"):
            yield from _materials(child)
        elif child.dep_ == "pobj" and preposition.lower_ in ("of", "from"):
            yield from (child, *_joined(child))


def _joined(token: Token) -> list[Token]:
    """The conjuncts up to the last that "and" or "or" joins; none of "made of sand, mental health, oil painting"."""
    joined = [token, *(other for other in token.conjuncts if other.i > token.i)]
    last = max((link.i for other in joined for link in other.children if link.dep_ == "cc"), default=-1)
    return [other for before, other in pairwise(joined) if before.i < last]


def _is_thing(material: Token) -> bool:
    """ "made of whales", "made of a log": what is counted is no material."""
    if any(
        (token.dep_ == "det" and token.lower_ in ("a", "an")) or token.dep_ == "nummod"
        for token in material.doc[material.left_edge.i : material.i]
    ):
        return True
    dictionary = dictionary_of(material.vocab)
    return material.tag_ == "NNS" and dictionary.singular(material.lower_, True) != material.lower_


def _with_conjuncts(adjective: Token) -> Iterator[Token]:
    """ "slimy and disgusting"; "larger than a cat and bigger", where parsers lose the second."""
    if adjective.lower_ in QUANTIFIERS | (WITH_A_COMPLEMENT - {"ready"}):
        return
    yield adjective
    for token in adjective.subtree:
        is_conjunct = token in adjective.conjuncts or (token.tag_ == adjective.tag_ == "JJR" and token.dep_ == "conj")
        has_own_subject = any(child.dep_ == "nsubj" for child in token.children)
        is_attribute = token.pos_ == "ADJ" or (token.tag_ == "VBN" and not _has_agent(token))
        if is_conjunct and is_attribute and not has_own_subject and not _is_beyond_noun(adjective, token):
            yield token


def _is_beyond_noun(adjective: Token, other: Token) -> bool:
    """ "a neuron, intricate, a landscape, thought provoking": a list, not two adjectives of one noun."""
    between = other.doc[adjective.i + 1 : other.i]
    return any(t.pos_ in ("NOUN", "PROPN") for t in between) and not any(t.dep_ == "cc" for t in between)


def _has_agent(participle: Token) -> bool:
    """ "small and filled with water": not what it looks like, but what happened to it."""
    return any(
        child.dep_ in ("agent", "dobj", "xcomp", "auxpass") or child.lower_ in ("with", "by", "in", "on")
        for child in participle.children
    )
