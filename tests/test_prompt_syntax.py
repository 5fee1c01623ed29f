"""The syntax of image tools, and the language of prompts."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from comat.corpora.text import Spelling
from comat.errors import UserError
from comat.models.families import BY_PIPELINE, columns
from comat.storage.prompt_language import language
from comat.storage.prompt_syntax import without_syntax


@pytest.mark.parametrize(
    ("prompt", "plain", "removed"),
    [
        ("a dragon, (silver scales:1.2) --ar 3:2", "a dragon, silver scales", {"weight": 1, "parameter": 1}),
        ("a fox::2 owl::1 --no boats --v 5", "a fox, owl", {"parts": 2, "things not to draw": 1, "parameter": 1}),
        ("a sky::1 clouds::-0.5", "a sky", {"parts": 1, "things not to draw": 1}),
        ("((best)), [blurry], {{x}}", "best, blurry, x", {"emphasis": 5}),
        ("((a cat:1.3) in a hat:1.2)", "a cat in a hat", {"weight": 2}),
        ("(face)++ and ball++", "face and ball", {"weight": 2}),
        ("[cat:dog:0.5], [rain:0.3], {red|blue} sofa", "dog, rain, red sofa", {"alternatives": 3}),
        ("a hat <lora:x_y:0.8> embedding:bad-hand", "a hat", {"network": 2}),
        ("a cat BREAK a dog", "a cat, a dog", {"command": 1}),
        ('"a (red:1.2) cat"', '"a red cat"', {"weight": 1}),  # in quotation marks as a whole
        ('(a "b BREAK c" sign:1.3)', 'a "b BREAK c" sign', {"weight": 1}),
        ("/imagine prompt: a cat", "a cat", {"command": 1}),
        ("a cat Negative prompt: blurry Steps: 20, Sampler: Euler", "a cat", {"negative prompt": 1}),
        ("https://a.b/c.png a cat", "a cat", {"address": 1}),
    ],
)
def test_syntax_is_taken_out_and_counted(prompt: str, plain: str, removed: dict[str, int]) -> None:
    found = without_syntax(prompt)
    assert (found.text, dict(found.removed)) == (plain, removed)


@pytest.mark.parametrize(
    "prompt",
    [
        "a red ball, a big cube",
        "a clock (old) at 10:30",
        "a model in scale (1:43)",
        "a C++ book, ratio 3:4",
        "a sea — a fish -- a boat",
        "a dog --running on grass",
        "say: 'a cat', no dog",
        'a "BREAK" sign and a red car',
        'a shirt that says "(red:1.2) --v 5" and “[a|b]”',
        "BREAK room with a table",
    ],
)
def test_ordinary_punctuation_is_no_syntax(prompt: str) -> None:
    assert without_syntax(prompt).text == prompt


@given(st.text("ab ,:()[]{}<>|+-\\0.1", max_size=30))
def test_every_character_comes_from_where_it_is_said_to(prompt: str) -> None:
    found = without_syntax(prompt)
    assert len(found.text) == len(found.origin) and list(found.origin) == sorted(found.origin)
    assert all(prompt[at] == c or c in ", " for at, c in zip(found.origin, found.text, strict=True))


@pytest.mark.parametrize(("syntax", "text"), [("strip", "a red ball"), ("keep", "a (red:1.2) ball")])
def test_the_text_encoder_gets_what_the_user_chose(syntax: str, text: str) -> None:
    spelling = Spelling(syntax)
    assert [spelling("a  (red:1.2) ball"), spelling("a dog")] == [text, "a dog"]
    assert spelling.report() == {"prompts": 1, "stripped": syntax == "strip", "found": {"weight": 1}}


@pytest.mark.parametrize(
    ("prompt", "expected"),
    [
        ("a red ball on a table", "English"),
        ("ball", "English"),
        ("a café with the señorita", "English"),
        ("ein roter Ball auf einem Tisch", "German"),
        ("un chat noir et un chien blanc", "French"),
        ("красный шар и синий куб", "Cyrillic script"),
        ("红色的球", "Chinese script"),
    ],
)
def test_language(prompt: str, expected: str) -> None:
    assert language(prompt) == expected


def test_an_entity_stands_in_the_columns_of_every_tokenizer() -> None:
    """ "wow!!! a ball" is 1 + 3 tokens before "ball" for one tokenizer and 1 + 5 for the other."""
    sdxl = BY_PIPELINE["StableDiffusionXLPipeline"].texts
    assert columns(sdxl, [77, 77], [[4], [6]]) == (4, 6)
    assert columns(sdxl, [77, 77], [[2, 3], [2, 3]]) == (2, 3)
    assert columns(sdxl, [77, 77], [[], []]) == ()


def test_columns_of_text_encoders_behind_each_other() -> None:
    """SD3 reads T5's 256 tokens behind CLIP's 77; FLUX.1 reads T5's alone, and of CLIP only what is pooled."""
    sd3, flux = BY_PIPELINE["StableDiffusion3Pipeline"].texts, BY_PIPELINE["FluxPipeline"].texts
    assert columns(sd3, [77, 77, 256], [[4], [6], [0, 1]]) == (4, 6, 77, 78)
    assert columns(sd3[:2], [77, 77], [[4], [4]]) == (4,)
    assert columns(flux, [77, 512], [[4], [5, 6]]) == (5, 6)


def test_a_token_that_no_text_encoder_reads_is_said() -> None:
    sdxl = BY_PIPELINE["StableDiffusionXLPipeline"].texts
    with pytest.raises(UserError, match="a token at position 77, and text_encoder_2 reads 77"):
        columns(sdxl, [77, 77], [[3], [77]])
