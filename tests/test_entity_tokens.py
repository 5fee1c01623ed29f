"""Entities and tokens: decoding an entity's tokens gives back its words, whatever the prompt looks like."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from comat.entities.tokens import tokens_of
from comat.errors import UserError
from comat.shapes.recipe.tokenizers import clip_tokenizer, words
from comat.tokenizers import check_length, is_too_long

TOKENIZER = clip_tokenizer()
word = st.one_of(
    st.sampled_from(words()[4:]),
    st.text("abcdefghijklmnopqrstuvwxyzABCDEFGH", min_size=1, max_size=9),
    st.sampled_from(
        ["dog's", "DOG’S", "T-shirt", "café", "well-lit", "’quoted’", "“ball”", "ball,", "’s", "—", "CUBE."]
    ),
)


def decoded(prompt: str, positions: list[int]) -> str:
    ids = TOKENIZER(prompt, truncation=True).input_ids
    return TOKENIZER.decode([ids[i] for i in positions]).replace(" ", "")


@settings(deadline=None)
@given(st.lists(word, min_size=1, max_size=6), st.data())
def test_tokens_decode_to_the_words(parts: list[str], data: st.DataObject) -> None:
    prompt = " ".join(parts)
    index = data.draw(st.integers(0, len(parts) - 1))
    start = len(" ".join(parts[:index])) + (index > 0)
    span = (start, start + len(parts[index]))
    whole = TOKENIZER(prompt, return_offsets_mapping=True).offset_mapping
    last = max(i for i, (begin, end) in enumerate(whole) if begin < span[1] and end > span[0])
    cut = last > TOKENIZER.model_max_length - 2  # the end token takes the last place
    tokens = tokens_of(TOKENIZER, [prompt])[0]
    assert tokens.are_cut == is_too_long([TOKENIZER], prompt)
    positions = tokens.of([span])
    if not cut:
        assert decoded(prompt, positions) == parts[index].lower().replace(" ", "")


def test_groups_join_their_words_and_the_start_token_counts() -> None:
    prompt = "A red, big ball"
    tokens = tokens_of(TOKENIZER, [prompt])[0]
    assert tokens.of([(2, 5), (11, 15)]) == [2, 5]
    assert tokens.of([(7, 10)]) == [4]
    assert tokens.of([(7, 10), (8, 10)]) == [4]  # each once


def test_words_that_are_cut_off_have_no_positions() -> None:
    prompt = " ".join(["red"] * 30)
    tokens = tokens_of(TOKENIZER, [prompt])[0]
    assert tokens.are_cut
    assert (tokens.of([(0, 3)]), tokens.of([(116, 119)])) == ([1], [])


@pytest.mark.parametrize(("before", "positions"), [(74, [75]), (75, []), (200, [])])
def test_a_prompt_is_cut_at_77_tokens(before: int, positions: list[int]) -> None:
    """As in CLIP: start, 75 words and end. The word after 74 others is token 75, the last that is read."""
    tokenizer = clip_tokenizer()
    tokenizer.model_max_length = 77
    prompt = "red " * before + "ball"
    tokens = tokens_of(tokenizer, [prompt])[0]
    assert tokens.of([(4 * before, 4 * before + 4)]) == positions
    assert tokens.are_cut == (before > 74)


@pytest.mark.parametrize("prompt", ["a red ball", "  a red  ball"])
def test_spaces_do_not_shift_tokens(prompt: str) -> None:
    start = prompt.index("ball")
    positions = tokens_of(TOKENIZER, [prompt])[0].of([(start, start + 4)])
    assert decoded(prompt, positions) == "ball"


def test_a_word_cut_inside_a_character_keeps_the_tokens_that_are_read() -> None:
    """A typographic quote is three bytes, so three tokens; the last places before the end token are up to 22."""
    prompt = "dog's T-shirt ’quoted’"
    start = prompt.index("’")
    positions = tokens_of(TOKENIZER, [prompt])[0].of([(start, len(prompt))])
    assert positions == list(range(positions[0], 23))
    assert "’quoted" in decoded(prompt, positions) and not decoded(prompt, positions).endswith("’")


def test_a_prompt_over_the_text_encoders_length_is_refused_with_what_would_be_cut() -> None:
    """24 tokens are 22 words between start and end; the words of the world are one token each."""
    tokenizers = [clip_tokenizer()]
    fits = " ".join(["red"] * 21 + ["ball"])
    check_length(tokenizers, fits)
    assert not is_too_long(tokenizers, fits)
    assert is_too_long(tokenizers, fits + " and star")
    with pytest.raises(UserError, match=r"has 26 tokens.* reads 24: 'and star' would be cut off"):
        check_length(tokenizers, fits + " and star")
