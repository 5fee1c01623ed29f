"""The noun filter: the project's list, a user's own, and the rows with their reasons."""

from __future__ import annotations

import io
import re
from pathlib import Path

import pytest
from rich.console import Console

from comat.corpora.texts import is_file_name
from comat.entities.build import entity_rows
from comat.entities.filter import filtered_nouns, reasons
from comat.entities.parse import ParsedEntity
from comat.entities.show import show_all_entities, show_entities
from comat.errors import UserError
from comat.params import load
from comat.shapes.recipe.tokenizers import clip_tokenizer
from tests.conftest import ROOT


def entity(lemma: str, *attributes: str, start: int = 0, quoted: bool = False) -> ParsedEntity:
    return ParsedEntity(lemma, lemma, (start, start + len(lemma)), attributes, quoted=quoted)


@pytest.mark.parametrize(
    ("noun", "reason"),
    [
        *((noun, "abstract") for noun in ("scene", "atmosphere", "language")),  # the paper's own examples
        *((noun, "hard to locate") for noun in ("sunlight", "noise", "place")),
        *((noun, "background") for noun in ("morning", "bathroom", "party", "beach")),
        *(
            (noun, None)
            for noun in ("dog", "sky", "wall", "water", "mountain", "building", "sun", "hand", "ball", "star")
        ),
    ],
)
def test_the_projects_list(noun: str, reason: str | None) -> None:
    assert reasons([entity(noun)], filtered_nouns()) == [reason]


def test_an_attribute_can_keep_a_noun_or_drop_it() -> None:
    filtered = filtered_nouns()
    assert reasons([entity("light", "warm")], filtered) == ["hard to locate"]
    assert reasons([entity("light", "red", "Traffic")], filtered) == [None]
    assert reasons([entity("lot", "parking")], filtered) == ["background"]


def test_no_noun_stands_in_two_classes() -> None:
    lines = (ROOT / "comat/entities/filtered_nouns.yaml").read_text(encoding="utf-8").splitlines()
    text = " ".join(line.partition("#")[0] for line in lines)
    nouns = [word.strip(" []") for part in text.split(":") for word in part.split(",")]
    assert len(filtered_nouns()) == len(nouns) - 1  # what stands before the first class
    assert len(filtered_nouns()) > 1000


def test_an_own_list_adds_and_overrules(tmp_path: Path) -> None:
    own = tmp_path / "own.yaml"
    own.write_text("too small: [Crumb]\nkeep: [beach]\n", encoding="utf-8")
    found = [entity("crumb"), entity("beach"), entity("morning")]
    assert reasons(found, filtered_nouns(own)) == ["too small", None, "background"]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("- beach\n", "got list"),
        ("mine: beach\n", "mine is 'beach'"),
        ("mine: [on]\nyours: [1]\n", r"yours is \[1\]"),
        ("mine: [beach\n", "not readable"),
    ],
)
def test_a_bad_own_list_is_one_clear_error(tmp_path: Path, text: str, problem: str) -> None:
    own = tmp_path / "own.yaml"
    own.write_text(text, encoding="utf-8")
    with pytest.raises(UserError, match=rf"own\.yaml.*{problem}"):
        filtered_nouns(own)


def test_a_missing_own_list_is_one_clear_error(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"none\.yaml"):
        filtered_nouns(tmp_path / "none.yaml")


def test_each_reason_in_its_turn() -> None:
    """Quoted text is no duplicate of a thing, and nouns of the filter are none of each other."""
    found = [entity("ball"), entity("ball"), entity("cube"), entity("cube", quoted=True), entity("day"), entity("day")]
    assert reasons(found, {"day": "background"}) == [
        "duplicate noun",
        "duplicate noun",
        None,
        "quoted text",
        "background",
        "background",
    ]


def test_rows_and_report() -> None:
    """One token a word: "a red ball" is 0 to 4 with start and end; the 30 words of the second prompt do not fit."""
    red = ParsedEntity("ball", "ball", (6, 10), ("red",), ((2, 5),), ("a",), ((0, 1),))
    parsed = [
        ("p", "a red ball", [red]),
        ("q", " ".join(["red"] * 29) + " star", [entity("star", start=116)]),
        ("r", "red", []),
    ]
    rows, report = entity_rows(parsed, 3, {}, [clip_tokenizer()] * 2, {}, 0)
    assert rows[0] == {
        "prompt_id": "p",
        "entity": 0,
        "noun": "ball",
        "lemma": "ball",
        "attributes": ["red"],
        "numerals": ["a"],
        "noun_tokens": [[3], [3]],
        "tokens": [[2, 3], [2, 3]],
        "kept": True,
        "reason": None,
    }
    cut = "cut off by the text encoder's length"
    assert (rows[1]["noun_tokens"], rows[1]["kept"], rows[1]["reason"]) == ([[], []], False, cut)
    assert report == {
        "prompts": 3,
        "entities": 2,
        "kept": 1,
        "prompts_without_entities": 2,
        "prompts_too_long": 1,
        "dropped": {cut: 1},
        "attributes_negated": 0,
        "languages": {"English": 3},
        "syntax": {"prompts": 0, "found": {}},
        "most_kept": [{"noun": "ball", "count": 1}],
        "most_dropped": [{"noun": "star", "reason": cut, "count": 1}],
        "without_entities": [parsed[1][1], "red"],
    }


def test_show_prints_the_parse_with_tokens_and_reasons() -> None:
    """The words of the world are one token each; start is position 0."""
    params = load(ROOT / "params.yaml").model_copy(update={"base_model": str(ROOT / "data/shapes/models/base")})
    console = Console(file=io.StringIO(), width=100, force_terminal=True, color_system="standard")
    show_entities(params.entities, params, "two red balls and a blue cube above a beach", console)
    shown = console.file.getvalue()
    first, _, *lines = re.sub(r"\x1b\[[\d;]*m", "", shown).splitlines()
    assert first == "two red balls and a blue cube above a beach"
    assert [line.split() for line in lines] == [
        ["balls", "red", "two", "2-3", "2-3"],
        ["cube", "blue", "6-7", "6-7"],
        ["beach", "background"],
    ]
    assert "\x1b[1;32mballs" in shown and "\x1b[36mred" in shown and "\x1b[33mtwo" in shown


def shown_of(prompts: list[str]) -> list[str]:
    params = load(ROOT / "params.yaml").model_copy(update={"base_model": str(ROOT / "data/shapes/models/base")})
    console = Console(file=io.StringIO(), width=100)
    show_all_entities(params.entities, params, prompts, console)
    return console.file.getvalue().splitlines()


def test_show_of_a_list_in_several_languages() -> None:
    """What a person checks of a list before training, also where no prompt of it can be read."""
    lines = shown_of(["a red ball", "красный шар", "ein roter Ball auf einem Tisch"])
    assert lines[0] == "prompts: 3"
    assert "languages: English 1, Cyrillic script 1, German 1" in lines
    assert lines[-3:] == ["prompts without entities: 2", "  красный шар", "  ein roter Ball auf einem Tisch"]
    assert any(line.split() == ["ball", "1", "tisch", "1", "not", "English"] for line in lines), lines


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("missing.txt", True),
        ("lists/missing.jsonl", True),
        ("a red ball", False),
        ("ball", False),
        ("a page named notes.txt", False),
        ("a" * 2000 + ".txt", False),
        ("a\0.txt", False),
    ],
)
def test_a_file_that_is_not_there_is_no_prompt(text: str, expected: bool) -> None:
    assert is_file_name(text) == expected
