"""The recipe of the world: training resumes exactly, latents are standard, supervision is where it should be."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
import torch
from diffusers import AutoencoderKL, DDPMScheduler
from torch import nn
from transformers import CLIPSegPreTrainedModel, LlavaForConditionalGeneration

from comat.randomness import generator
from comat.shapes.recipe import autoencoder, base, captioner, dino, features, git, segmenter, text, vlm
from comat.shapes.recipe.autoencoder import standardise
from comat.shapes.recipe.base import binding_loss, group_words, interpolate, object_areas
from comat.shapes.recipe.data import Example, clean_examples
from comat.shapes.recipe.dino import Distillation, view
from comat.shapes.recipe.fit import fit
from comat.shapes.recipe.segmenter import naming_loss
from comat.shapes.recipe.tokenizers import bert_tokenizer, clip_tokenizer, merges_of, words
from comat.shapes.world.captions import describe
from comat.shapes.world.scenes import Group, Object, Scene, Spec


def regression(model: nn.Module, stop_at: int | None = None):
    """A loss on random data that raises at its `stop_at`-th call."""
    calls = iter(range(10**6))

    def loss(generator: torch.Generator) -> torch.Tensor:
        if next(calls) == stop_at:
            raise KeyboardInterrupt
        x = torch.randn(8, 3, generator=generator)
        return (model(x) - x.sum(1, keepdim=True)).square().mean()

    return loss


def linear() -> nn.Module:
    torch.manual_seed(0)
    return nn.Linear(3, 1)


def test_interrupted_training_ends_with_the_same_weights(tmp_path: Path) -> None:
    """The state is saved after step 100; the second run takes steps 100 to 129 again."""
    whole, broken = linear(), linear()
    fit("m", whole, regression(whole), steps=130, learning_rate=0.01, work=tmp_path / "a")
    with pytest.raises(KeyboardInterrupt):
        fit("m", broken, regression(broken, stop_at=115), steps=130, learning_rate=0.01, work=tmp_path / "b")
    again = linear()
    fit("m", again, regression(again), steps=130, learning_rate=0.01, work=tmp_path / "b")
    assert torch.equal(again.weight, whole.weight) and torch.equal(again.bias, whole.bias)


class ComputedElsewhere(Exception):
    """What ends a recipe after the first step of `fit_elsewhere`."""


def fit_elsewhere(name: str, model: nn.Module, loss: Callable, **options: object) -> None:
    """One step of a recipe with its model on the meta device, where data that was left on the CPU is an error."""
    for module in model.modules():
        # The other kind of attention looks into its mask.
        if isinstance(module, CLIPSegPreTrainedModel | LlavaForConditionalGeneration):
            module.set_attn_implementation("eager")
    model.to("meta")
    value = loss(generator(0, name))
    assert value.device.type == "meta" and value.shape == ()
    value.backward()
    raise ComputedElsewhere


RECIPES = {
    autoencoder: lambda work: autoencoder.train(1, work, "fp32"),
    captioner: lambda work: captioner.train(1, bert_tokenizer(), work, "fp32"),
    git: lambda work: git.train(1, bert_tokenizer(), work, "fp32"),
    segmenter: lambda work: segmenter.train(1, clip_tokenizer(), work, "fp32"),
    features: lambda work: features.train(1, work, "fp32"),
    dino: lambda work: dino.train(1, work, "fp32"),
    vlm: lambda work: vlm.train(1, vlm.tokenizer(), work, "fp32"),
    text: lambda work: text.train(1, clip_tokenizer(), work),
}


@pytest.mark.parametrize("module", RECIPES, ids=lambda module: module.__name__.rpartition(".")[2])
def test_a_recipe_trains_where_its_model_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, module: ModuleType
) -> None:
    taught = captioner if module is git else module
    monkeypatch.setattr(taught, "fit", fit_elsewhere)
    few = lambda count, *args, **options: clean_examples(min(count, 64), *args, **options)  # noqa: E731
    monkeypatch.setattr(taught, "clean_examples", few, raising=False)
    with pytest.raises(ComputedElsewhere):
        RECIPES[module](tmp_path)


def test_the_painter_trains_where_its_model_is() -> None:
    """Without the supervision of attention, which picks by value and so cannot run on the meta device."""
    tokens, pooled = torch.zeros(4, 24, base.TOKEN_WIDTH), torch.zeros(4, base.POOLED_WIDTH)
    areas, words_of = torch.zeros(4, 3, 8, 8), torch.zeros(4, 3, 24, dtype=torch.bool)
    data = base.Captioned(torch.zeros(4, 4, 16, 16), tokens, pooled, 64, 2, areas, words_of)
    unet = base.build_unet().to("meta")
    loss = base.painter_loss(unet, data, DDPMScheduler(**base.NOISE), 0.0, generator(0, "painter"))
    assert loss.device.type == "meta" and loss.shape == ()


def test_standard_latents_decode_to_the_same_image() -> None:
    torch.manual_seed(0)
    vae = AutoencoderKL(
        block_out_channels=(8, 8),
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        norm_num_groups=4,
    ).eval()
    x = torch.randn(16, 3, 16, 16)
    with torch.no_grad():
        before = vae.encode(x).latent_dist
        image = vae.decode(before.mean).sample
        standardise(vae, before.mean)
        after = vae.encode(x).latent_dist
        torch.testing.assert_close(after.mean.mean((0, 2, 3)), torch.zeros(4), atol=1e-5, rtol=0)
        torch.testing.assert_close(after.mean.std((0, 2, 3)), torch.ones(4), atol=1e-4, rtol=0)
        torch.testing.assert_close(vae.decode(after.mean).sample, image, atol=1e-4, rtol=1e-4)
        shrunk = before.std / before.mean.std((0, 2, 3))[None, :, None, None]
        torch.testing.assert_close(after.std, shrunk, atol=1e-5, rtol=1e-4)


def test_areas_and_words_of_each_group() -> None:
    """ "a red ball and a blue cube" is start a red ball and a blue cube end: words 1-3 and 5-7. A ball of radius 0.25
    at (0.25, 0.25) covers most of the upper left cell of four, and nothing else."""
    scene = Scene((Object("ball", "red", 0.25, 0.25, 0.25), Object("cube", "blue", 0.75, 0.75, 0.2)))
    spec = Spec((Group("ball", "red"), Group("cube", "blue")))
    tokenizer = clip_tokenizer()
    ids = tokenizer([describe(spec)], padding="max_length", return_tensors="pt").input_ids
    examples = [Example(scene, spec, describe(spec))]
    areas, words = object_areas(examples, cells=2), group_words(examples, ids, tokenizer)
    assert words[0, 0].nonzero().flatten().tolist() == [1, 2, 3]
    assert words[0, 1].nonzero().flatten().tolist() == [5, 6, 7]
    assert not words[0, 2].any() and not areas[0, 2].any()
    assert areas[0, 0, 0, 0] > 0.5 and areas[0, 0].sum() == areas[0, 0, 0, 0]
    assert areas[0, 1, 1, 1] > 0.4 and areas[0, 1].sum() == areas[0, 1, 1, 1]


def test_binding_loss_by_hand() -> None:
    """One layer, one head, one pixel, three tokens with attention 0.5, 0.3, 0.2; the group's words are the last two.

    All of the pixel belongs to the group: -log(0.5). None of it: -log(1 - 0.5), the same. Groups without words count
    for nothing.
    """
    maps = {"layer": torch.tensor([0.5, 0.3, 0.2]).reshape(1, 1, 1, 1, 3)}
    words = torch.tensor([[[False, True, True], [False, False, False]]])
    areas = torch.ones(1, 2, 1, 1)
    expected = torch.tensor(2.0).log()
    torch.testing.assert_close(binding_loss(maps, areas, words), expected)
    torch.testing.assert_close(binding_loss(maps, 0 * areas, words), expected)
    only = torch.tensor([[[False, True, False], [False, False, False]]])
    torch.testing.assert_close(binding_loss(maps, areas, only), -torch.tensor(0.3).log())


def test_interpolation_by_hand() -> None:
    """From 1 towards 3, a quarter of the way: 1.5."""
    model = nn.Linear(1, 1)
    with torch.no_grad():
        model.weight.fill_(3.0)
        model.bias.fill_(3.0)
    interpolate(model, {"weight": torch.tensor([[1.0]]), "bias": torch.tensor([1.0])}, 0.25)
    assert model.weight.item() == model.bias.item() == 1.5


def test_merges_by_hand() -> None:
    """a|a|b and a|b: (a, b) is there twice, then (a, ab) is left. Of equals the first: (b, a), (c, a)."""
    assert merges_of(["aab", "ab"]) == [("a", "b</w>"), ("a", "ab</w>")]
    assert merges_of(["ca", "ba"]) == [("b", "a</w>"), ("c", "a</w>")]


def test_the_clip_tokenizer_is_the_same_each_time_and_knows_every_word() -> None:
    """The library's trainer broke ties at random: of four calls three gave other vocabularies than the first."""
    tokenizer = clip_tokenizer()
    assert all(clip_tokenizer().get_vocab() == tokenizer.get_vocab() for _ in range(3))
    assert all(len(tokenizer.tokenize(word)) == 1 for word in words())


class Constant(nn.Module):
    """Answers every image with the same two cosines."""

    def __init__(self, *cosines: float) -> None:
        super().__init__()
        self.cosines = nn.Parameter(torch.tensor(cosines))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.cosines.expand(len(x), -1)


def test_distillation_by_hand() -> None:
    """The teacher first goes a hundredth of the way to the student, 0.1 ln 3, and is then at 0.04 ln 3: both say
    (3/4, 1/4) at their temperatures. The centre goes a tenth of the way to the teacher's answer.
    """
    model, ln3 = Distillation(), math.log(3)
    model.student, model.teacher = Constant(0.1 * ln3, 0), Constant((0.04 - 0.001) / 0.99 * ln3, 0)
    model.centre = torch.zeros(2)
    x = torch.zeros(4, 3, 64, 64)
    expected = -(3 / 4 * math.log(3 / 4) + 1 / 4 * math.log(1 / 4))
    assert model.loss(x, x).item() == pytest.approx(expected, abs=1e-5)
    assert model.teacher.cosines.tolist() == pytest.approx([0.04 * ln3, 0])
    assert model.centre.tolist() == pytest.approx([0.004 * ln3, 0])


def test_views_lie_inside_the_image_and_differ() -> None:
    """Views of a plain image are plain up to the noise, of between half and one and a half of its channels, or grey."""
    x = torch.tensor([1.0, 0.5, -1.0]).view(1, 3, 1, 1).expand(64, 3, 64, 64)
    seen = view(x, generator(0, "view"))
    means = seen.mean((2, 3))
    grey = (means.amax(1) - means.amin(1)) < 0.02
    assert 2 <= grey.sum() <= 26 and (seen - means[:, :, None, None]).std((2, 3)).max() < 0.11
    factors = means[~grey] / x[0, :, 0, 0]
    assert factors.min() > 0.48 and factors.max() < 1.52
    ramp = torch.linspace(-1, 1, 64).expand(1, 3, 64, 64)
    first, second = (view(ramp, generator(0, "view", i)) for i in range(2))
    assert (first - second).abs().mean() > 0.1


def test_the_students_gradient_does_not_reach_the_teacher() -> None:
    torch.manual_seed(0)
    model = Distillation()
    model.loss(torch.randn(2, 3, 64, 64), torch.randn(2, 3, 64, 64)).backward()
    assert all(w.grad is None for w in model.teacher.parameters())
    assert all(w.grad is not None for w in model.student.head.parameters())


def named(texts: torch.Tensor) -> torch.Tensor:
    """Two patches, (2, 0) of the first noun and (0, 3) of the second, with a background like (-1, 0); scale ln 3."""
    patches, labels = torch.tensor([[[2.0, 0], [0, 3]]]), torch.tensor([[0, 1]])
    return naming_loss(patches, texts, torch.tensor([-1.0, 0]), labels, torch.tensor(math.log(3)))


def test_naming_by_hand() -> None:
    """Similarities (1, 0, -1) and (0, 1, 0) times ln 3: odds of 3 : 1 : 1/3 and 1 : 3 : 1, whatever the lengths."""
    loss = named(torch.tensor([[5, 0], [0, 0.1]]))
    assert loss.item() == pytest.approx(-math.log(9 / 13 * 3 / 5) / 2, abs=1e-6)


def test_naming_parts_texts_that_look_alike() -> None:
    """The decoder once learned to pass the text encoder over: all nouns had one embedding, and a mask of all objects.
    One text for both nouns names none better than by a toss, and the gradient turns each to its own patch.
    """
    texts = torch.ones(2, 2, requires_grad=True)
    loss = named(texts)
    assert loss.item() > math.log(2)
    loss.backward()
    turn = -texts.grad @ torch.tensor([1.0, -1.0])
    assert turn[0] > 0.1 and turn[1] < -0.1
