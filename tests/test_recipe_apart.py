"""The base whose encoders say each word by itself: no word knows another, and what it is taught adds up."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from comat.shapes.recipe import apart
from comat.shapes.recipe.text import lesson, noun_tokens
from comat.shapes.recipe.tokenizers import clip_tokenizer
from comat.shapes.world.captions import parse_prompt
from comat.shapes.world.scenes import COLOURS, NOUNS, RELATIONS
from tests.test_recipe import ComputedElsewhere, fit_elsewhere


def test_a_word_says_nothing_of_the_words_before_it(tmp_path: Path) -> None:
    """Two prompts that differ in their colours have the same embeddings everywhere else; the pooled ones differ."""
    own = clip_tokenizer()
    encoders = apart.read_apart(1, own, tmp_path)
    prompts = ["a red ball and a blue cube", "a green ball and a pink cube"]
    ids = own(prompts, padding="max_length", return_tensors="pt").input_ids
    tokens, pooled = encoders(ids)
    same = (tokens[0] == tokens[1]).all(1)
    assert (~same).nonzero().flatten().tolist() == [2, 6]  # behind the start token
    assert not torch.equal(pooled[0], pooled[1])
    assert set(noun_tokens(own)) >= {int(ids[0, 3]), int(ids[0, 7])}


def test_a_bag_counts_colours_and_nouns_apart_by_hand() -> None:
    """Two red balls above a blue cube: as two blue balls above a red cube, but for one of each colour."""
    prompts = ["two red balls above a blue cube", "a red cube above two blue balls"]
    told = lesson(clip_tokenizer(), [parse_prompt(prompt) for prompt in prompts])
    first, second = apart.bag(told.pooled)
    colours, nouns = [0] * len(COLOURS), [0] * len(NOUNS)
    colours[list(COLOURS).index("red")], colours[list(COLOURS).index("blue")] = 2, 1
    nouns[NOUNS.index("ball")], nouns[NOUNS.index("cube")] = 2, 1
    above = [int(relation == "above") for relation in RELATIONS]
    assert first.tolist() == [*colours, *nouns, *above]
    assert second.tolist() == [*(3 - c if c else 0 for c in colours), *nouns, *above]


def test_it_trains_where_its_encoders_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(apart, "fit", fit_elsewhere)
    with pytest.raises(ComputedElsewhere):
        apart.read_apart(1, clip_tokenizer(), tmp_path)
