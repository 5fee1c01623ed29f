"""What each family of base models reads of a prompt, and in which columns of its maps the words stand."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from diffusers import SanaPipeline
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from sentencepiece import SentencePieceProcessor, SentencePieceTrainer
from transformers import Qwen2Tokenizer, T5Tokenizer

from comat.diffusion.backbones import sana
from comat.diffusion.backbones.qwen_image import ASKED
from comat.entities.tokens import tokens_of
from comat.models.families import BY_PIPELINE
from comat.tokenizers import as_read
from tests.test_replay import relative
from tests.tiny_families import loaded

WORDS = st.lists(
    st.sampled_from(["Red", "ball", "a", "wooden", "GREEN", "stars", "zebra's", "42", "x-ray"]), max_size=2
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=40)
@given(before=WORDS, entity=st.sampled_from(["Blue cube", "wooden table", "quokka", "pink ring"]), after=WORDS)
@pytest.mark.parametrize("name", ["sd2", "sdxl", "sd3", "pixart_sigma", "flux_dev", "sana", "qwen_image", "z_image"])
def test_columns_hold_the_words_of_an_entity(families: Path, name: str, before, entity, after) -> None:
    """What the columns of an entity decode to is the entity, whatever the tokenizer and where its tokens stand."""
    backbone = loaded(families / name)
    prompt = " ".join([*before, entity, *after])
    tokens = [tokens_of(tokenizer, [prompt])[0] for tokenizer in backbone.tokenizers]
    assume(not any(one.are_cut for one in tokens))  # the words are spelled, and 24 tokens are read
    start = len(" ".join([*before, ""]))
    span = (start, start + len(entity))
    positions = [one.of([span]) for one in tokens]
    words = backbone.words(prompt)
    read = [text.tokenizer for text in backbone.texts if text.place in ("first", "behind")]
    said = "".join(words[column] for column in backbone.columns(positions)).replace(" ", "").lower()
    assert said == entity.replace(" ", "").lower() * len(read)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=20)
@given(
    words=st.lists(st.sampled_from(["Red", "ball", "a", "quokka's", "42", "x-ray", "(two)"]), min_size=1, max_size=5)
)
@pytest.mark.parametrize(
    ("name", "before", "after"),
    [
        ("qwen_image", ASKED, "<|im_end|>\n<|im_start|>assistant\n"),
        ("z_image", "<|im_start|>user\n", "<|im_end|>\n<|im_start|>assistant\n"),
    ],
)
def test_a_template_is_read_as_if_it_were_written_around_the_prompt(
    families: Path, name: str, before: str, after: str, words: list[str]
) -> None:
    """Ids as of the whole text by the tokenizer as it came; what is not the prompt's own is known."""
    backbone, prompt = loaded(families / name), " ".join(words)
    came = Qwen2Tokenizer.from_pretrained(families / name / "tokenizer")
    whole = came(before + prompt + after).input_ids
    asked = ASKED if name == "qwen_image" else ""
    ids, mask, kept = backbone._instructed(0, [prompt], asked, place=0)
    assert ids[0, : len(whole)].tolist() == whole and int(mask.sum()) == len(whole)
    assert len(kept) == 512 and kept[0] == len(came(asked).input_ids) == (34 if asked else 0)
    own = [whole[kept[column]] for column in backbone.spoken(prompt)]
    assert own == came(prompt).input_ids


@pytest.mark.parametrize("prompt", ["A red ball and a blue cube", " Two green stars", "42 zebras", "(a ring)"])
def test_sana_reads_of_its_instruction_what_the_stock_pipeline_does(families: Path, prompt: str) -> None:
    """The start, and the last 299 tokens: the prompt begins in the middle of the word that ends the instruction."""
    backbone = loaded(families / "sana")
    pipeline = SanaPipeline.from_pretrained(families / "sana", dtype=torch.float32)
    found = backbone.encode_prompts([prompt])
    embeddings, mask, null, null_mask = pipeline.encode_prompt([prompt], complex_human_instruction=sana.ASKED)
    assert (
        torch.equal(found.mask, mask) and relative(found.tokens * mask[..., None], embeddings * mask[..., None]) < 1e-6
    )
    assert torch.equal(backbone.null.mask, null_mask) and relative(backbone.null.tokens, null) < 1e-6
    word = backbone.words(prompt)[backbone.spoken(prompt)[0]]
    assert prompt.strip().lower().startswith(word)


def test_a_tokenizer_of_sentencepiece_alone_reads_as_sentencepiece_does(tmp_path: Path) -> None:
    """PixArt's T5 has no tokenizer.json; ids by the library that wrote its file, in lower case as its pipeline does."""
    lines = ["a red ball and a blue cube", "two green stars above a table", "the dog's pink ring, on a wooden box"]
    (tmp_path / "lines.txt").write_text("\n".join(lines * 20))
    ids = {"pad_id": 0, "eos_id": 1, "unk_id": 2, "bos_id": -1}
    SentencePieceTrainer.train(
        input=str(tmp_path / "lines.txt"), model_prefix=str(tmp_path / "spiece"), vocab_size=30, minloglevel=9, **ids
    )
    (text,) = [text for text in BY_PIPELINE["PixArtSigmaPipeline"].texts]
    (tmp_path / "tokenizer_config.json").write_text('{"tokenizer_class": "T5Tokenizer"}')
    tokenizer = as_read(T5Tokenizer.from_pretrained(tmp_path), text)
    own = SentencePieceProcessor(model_file=str(tmp_path / "spiece.model"))
    for prompt in (*lines, "Two Red stars  on the Table"):
        assert tokenizer(prompt).input_ids == [*own.encode(prompt.lower().strip()), 1]
    assert tokenizer.model_max_length == 300
