"""The recipe of the second world's base: its text encoders, its loss, and the pipeline that it ends in."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from diffusers import AutoencoderKL, StableDiffusion3Pipeline

from comat.diffusion.backbones import load_base
from comat.randomness import generator
from comat.shapes.recipe import flow
from comat.shapes.recipe.__main__ import save
from comat.shapes.recipe.data import clean_examples
from comat.shapes.recipe.text import noun_tokens, noun_words, targets
from comat.shapes.recipe.tokenizers import clip_tokenizer, t5_tokenizer, words
from comat.shapes.world.captions import parse_prompt
from comat.tokenizers import words_of
from tests.test_recipe import ComputedElsewhere, fit_elsewhere


def captions(count: int = 4) -> flow.Captions:
    """Of nothing: the shapes of a set of `count` examples."""
    tokens, pooled = torch.zeros(count, 48, 128), torch.zeros(count, 96)
    nouns = torch.zeros(count, 3, 48, dtype=torch.bool)
    latents, areas = torch.zeros(count, 4, 16, 16), torch.zeros(count, 3, 8, 8)
    return flow.Captions(latents, tokens, pooled, areas, nouns, tokens[:1], pooled[:1])


def test_every_word_is_one_piece_of_t5_and_anything_else_is_spelled() -> None:
    tokenizer = t5_tokenizer()
    for word in set(words()) - {","}:
        assert tokenizer.convert_ids_to_tokens(tokenizer(word).input_ids) == ["\u2581" + word, "</s>"]
    spelled = tokenizer.convert_ids_to_tokens(tokenizer("a wet ball").input_ids)
    assert spelled == ["\u2581a", "\u2581", "w", "e", "t", "\u2581ball", "</s>"]


def test_nouns_stand_where_each_tokenizer_has_them() -> None:
    """ "two red balls, a cube and a star": CLIP has a start token, T5 has none; a comma is a token of its own."""
    prompt = ["two red balls, a cube and a star"]
    for tokenizer, expected in ((clip_tokenizer(), [3, 6, 9]), (t5_tokenizer(), [2, 5, 8])):
        ids = tokenizer(prompt, padding="max_length", return_tensors="pt").input_ids
        found = noun_words(ids, tokenizer)
        assert [group.nonzero().flatten().tolist() for group in found[0]] == [[place] for place in expected]
        assert [words_of(tokenizer, prompt[0])[place] for place in expected] == ["balls", "cube", "star"]


def test_both_tokenizers_are_taught_the_same_classes() -> None:
    """A red ball and two stars: nouns 0 and 3, classes alike, places one apart."""
    spec = parse_prompt("a red ball and two stars")
    rows = []
    for tokenizer in (clip_tokenizer(), t5_tokenizer()):
        ids = tokenizer("a red ball and two stars").input_ids
        rows.append(targets(spec, ids, noun_tokens(tokenizer))[0])
    of_clip, of_t5 = rows
    assert [row[1:] for row in of_clip] == [row[1:] for row in of_t5]
    assert [a[0] - b[0] for a, b in zip(of_clip, of_t5, strict=True)] == [1, 1]


def test_noun_loss_by_hand() -> None:
    """A pixel gives 0.2 to the noun and 0.6 to the other text, the rest to the image: 0.25 of what the text gets.

    All of it belongs to the object: -log(0.25); none of it: -log(0.75)."""
    maps = {"layer": torch.tensor([0.2, 0.6]).reshape(1, 1, 1, 1, 2)}
    nouns = torch.tensor([[[True, False]]])
    areas = torch.ones(1, 1, 1, 1)
    torch.testing.assert_close(flow.noun_loss(maps, areas, nouns), torch.tensor(4.0).log())
    torch.testing.assert_close(flow.noun_loss(maps, 0 * areas, nouns), -torch.tensor(0.75).log())


def test_the_text_encoders_train_where_they_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flow, "fit", fit_elsewhere)
    few = flow.random_specs(64)
    monkeypatch.setattr(flow, "random_specs", lambda: few)
    with pytest.raises(ComputedElsewhere):
        flow.train_text(1, clip_tokenizer(), t5_tokenizer(), tmp_path)


def test_the_transformer_trains_where_it_is() -> None:
    transformer = flow.build_transformer().to("meta")
    loss = flow.flow_loss(transformer, captions(), 2, 0.0, generator(0, "flow"))
    assert loss.device.type == "meta" and loss.shape == ()


def test_a_perfect_prediction_has_no_loss() -> None:
    """Of latents of zeros the velocity is the noise: (noisy - 0) / sigma."""

    class Perfect(torch.nn.Module):
        device = torch.device("cpu")

        def forward(self, noisy: torch.Tensor, _tokens: object, _pooled: object, t: torch.Tensor, return_dict: bool):
            return (noisy / (t / 1000).view(-1, 1, 1, 1),)

    loss = flow.flow_loss(Perfect(), captions(), 4, 0.0, generator(0, "flow"))  # type: ignore[arg-type]
    assert loss < 1e-10


def test_the_pipeline_is_read_by_the_project_as_by_diffusers(tmp_path: Path) -> None:
    """Saved in half precision, the stock pipeline and the backbone encode alike, 24 tokens of CLIP and 24 of T5."""
    torch.manual_seed(0)
    clip, t5 = clip_tokenizer(), t5_tokenizer()
    blocks: dict = {"block_out_channels": (8, 8), "norm_num_groups": 4}
    kinds: dict = {"down_block_types": ("DownEncoderBlock2D",) * 2, "up_block_types": ("UpDecoderBlock2D",) * 2}
    vae = AutoencoderKL(**blocks, **kinds)
    encoders = flow.FlowTextEncoders(clip, t5)
    data = flow.captioned(clean_examples(3, seed=1), vae, encoders, clip, t5)
    assert data.latents.shape == (3, 4, 32, 32) and data.tokens.shape == (3, 48, 128) and data.pooled.shape == (3, 96)
    save(flow.pipeline(flow.build_transformer(), encoders, vae, clip, t5), tmp_path / "base")
    backbone = load_base(str(tmp_path / "base"))
    stock = StableDiffusion3Pipeline.from_pretrained(tmp_path / "base", torch_dtype=torch.float32)
    prompt = "a red ball and two blue stars"
    ours = backbone.encode_prompts([prompt])
    tokens, _, pooled, _ = stock.encode_prompt(prompt, prompt, prompt, max_sequence_length=24)
    torch.testing.assert_close(ours.tokens, tokens)
    assert ours.pooled is not None
    torch.testing.assert_close(ours.pooled, pooled)
