"""The words that a captioner reads, each with its likelihood."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from comat.captioners.blip import Blip
from comat.evaluation.likelihood import END, read_words, words_of


def test_tokens_of_a_word_stand_together() -> None:
    """Two tokens of "cube", which has no space before its second; the end stands alone."""
    assert words_of(["a", " cu", "be", ""]) == [[0], [1, 2], [3]]
    assert words_of([" a", ""]) == [[0], [1]]
    assert words_of([""]) == [[0]]


@pytest.mark.parametrize("prefix", ["", "a picture of"])
def test_words_are_those_of_the_prompt_and_sum_to_its_likelihood(tiny: Path, prefix: str) -> None:
    blip = Blip(str(tiny / "blip"), None, prefix, torch.device("cpu"), torch.float32)
    prompts = ["a red ball and a blue cube", "Two stars"]
    images = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    reads = read_words(blip, images, prompts)
    assert [read.words for read in reads] == [[*prompt.lower().split(), END] for prompt in prompts]
    log_p, counts = blip.log_likelihood(images, prompts)
    for read, own, counted in zip(reads, log_p, counts, strict=True):
        assert sum(read.log_p) == pytest.approx(float(own[counted].sum()), abs=1e-3)


@pytest.mark.parametrize("kind", ["git", "llava"])
def test_every_captioner_says_what_its_tokens_stand_for(tiny: Path, kind: str) -> None:
    from comat.captioners.load import load_captioner
    from tests.tiny_models import one_captioner

    captioner = load_captioner(one_captioner(kind, tiny / kind), torch.device("cpu"), torch.float32)
    pieces = captioner.pieces("a red ball")
    _, counts = captioner.log_likelihood(torch.zeros(1, 3, 32, 32), ["a red ball"])
    assert len(pieces) == int(counts.sum()) and "".join(pieces[:-1]) == "a red ball"
