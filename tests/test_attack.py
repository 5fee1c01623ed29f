"""The prompt attack: words that every tokenizer reads, mixtures of words, the gradient, the count."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import ResNetConfig, ResNetForImageClassification
from typer.testing import CliRunner

from comat.cli import app
from comat.diffusion.backbones import Backbone, load_base
from comat.errors import UserError
from comat.finished.attack.classes import ROWS, run
from comat.finished.attack.classifier import Classifier, margin, names_of
from comat.finished.attack.relaxed import encode
from comat.finished.attack.search import PURPOSE, Attack, Search, drawn_words, gumbel
from comat.finished.attack.summary import attack_table, summary
from comat.finished.attack.targets import Target, read_targets, targets_of
from comat.finished.attack.words import Words, candidates
from comat.params import SamplingParams
from comat.randomness import generator, noise
from comat.storage.tables import read_table
from comat.tokenizers import load_tokenizers
from tests.conftest import ROOT

SHAPES = ROOT / "data/shapes/models"
PARAMS = SamplingParams(
    seed=0, resolution=32, native_resolution=32, scheduler="ddim", sampling_steps=4, guidance_scale=3.0
)
LABELS = {0: "ball, sphere", 1: "cone", 2: "star"}


def save_classifier(folder: Path, labels: dict[int, str] = LABELS) -> Path:
    torch.manual_seed(0)
    config = ResNetConfig(
        embedding_size=8,
        hidden_sizes=[8, 8],
        depths=[1, 1],
        layer_type="basic",
        id2label=labels,
        num_labels=len(labels),
    )
    ResNetForImageClassification(config).save_pretrained(folder)
    processor = {"image_processor_type": "ConvNextImageProcessor", "size": {"shortest_edge": 16}}
    processor |= {"image_mean": [0.5] * 3, "image_std": [0.25] * 3}
    (folder / "preprocessor_config.json").write_text(json.dumps(processor))
    return folder


def small_words(backbone: Backbone, count: int = 6) -> Words:
    """Some that the prompts below do not hold."""
    found = candidates(backbone.tokenizers).without(["a red ball"])
    return Words(found.texts[:count], tuple(ids[:count] for ids in found.ids))


# Words.


@pytest.mark.parametrize("model", ["base", "flow"])
def test_every_candidate_is_one_token_to_every_tokenizer(model: str) -> None:
    tokenizers = load_tokenizers(str(SHAPES / model))
    words = candidates(tokenizers)
    assert {"above", "left", "two"} <= set(words.texts)
    for tokenizer, ids in zip(tokenizers, words.ids, strict=True):
        for word, id in zip(words.texts, ids.tolist(), strict=True):
            read = tokenizer(f"a red ball {word} {word}", add_special_tokens=False).input_ids
            assert read[-2:] == [id, id]


def test_no_word_of_a_class_is_put_behind_a_prompt() -> None:
    words = Words(("ball", "balls", "berries", "cross", "crosses", "left", "on"), (torch.arange(7),))
    left = words.without(["red Ball", "berry", "cross"])
    assert left.texts == ("left", "on") and left.ids[0].tolist() == [5, 6]
    with pytest.raises(UserError, match="of 2 words 1 may be put behind a prompt"):
        left.without(["left"])


# Mixtures.


@pytest.mark.parametrize("model", ["base", "flow"])
def test_a_mixture_of_one_word_is_that_word(model: str) -> None:
    backbone = load_base(str(SHAPES / model))
    words = small_words(backbone)
    shares = torch.eye(len(words))[[4, 1]]
    mixed = encode(backbone, "a red ball", words, shares)
    plain = backbone.encode_prompts([f"a red ball {words.texts[4]} {words.texts[1]}"])
    torch.testing.assert_close(mixed.tokens, plain.tokens, rtol=0, atol=1e-5)
    assert mixed.pooled is not None and plain.pooled is not None
    torch.testing.assert_close(mixed.pooled, plain.pooled, rtol=0, atol=1e-5)
    again = backbone.encode_prompts([f"a red ball {words.texts[4]} {words.texts[1]}"])  # nothing is left behind
    assert torch.equal(again.tokens, plain.tokens)


def test_words_that_are_cut_off_are_an_error() -> None:
    backbone = load_base(str(SHAPES / "base"))
    words = small_words(backbone)
    with pytest.raises(UserError, match="reads 2 of 4 words behind the prompt"):
        encode(backbone, "a red ball " * 6 + "a red", words, torch.full((4, len(words)), 1 / len(words)))


# The search.


def by_hand(attack: Attack, weights: Tensor, prompt: str, label: int) -> Tensor:
    """The gradient of the first iteration with autograd through all of the sampling, the denoiser's input detached."""
    weights = weights.clone().requires_grad_()
    rng = generator(0, PURPOSE, "words", prompt, 0)
    prompts = encode(attack.backbone, prompt, attack.words, (weights + gumbel(weights.shape, rng)).softmax(-1))
    own = [generator(0, PURPOSE, "noise", prompt, 0, 0)]
    shape = attack.backbone.latent_shape(32)
    sampler = attack.backbone.sampler("ddim", 4, shape[1:])
    z = sampler.first(noise(shape, own))
    for index in range(4):
        x = sampler.seen(z.detach(), index)
        z = sampler.step(attack.backbone.guided(x, sampler.timesteps[index], prompts, 3.0), index, z, own)
    loss = margin(attack.classifier(attack.backbone.decode(z)), label, attack.search.kappa)
    return torch.autograd.grad(loss, weights)[0]


@pytest.mark.parametrize("model", ["sd15", "sdxl"])
def test_the_gradient_is_that_of_the_whole_graph(tiny: Path, tmp_path: Path, model: str) -> None:
    """With all steps recorded, within 1e-4 of its largest part; the first step goes against it."""
    backbone = load_base(str(tiny / model))
    backbone.denoiser.requires_grad_(False)
    classifier = Classifier(str(save_classifier(tmp_path)), None, torch.device("cpu"), torch.float32)
    words = small_words(backbone)
    attack = Attack(backbone, PARAMS, 4, classifier, words, Search(words=2, iterations=1, learning_rate=0.3), 2)
    at = torch.linspace(-1, 1, 2 * len(words)).view(2, -1)
    expected, found = by_hand(attack, at, "a red ball", 0), attack.gradient(at, "a red ball", 0, 0)
    assert expected.abs().max() > 0
    assert (found - expected).abs().max() < 1e-4 * expected.abs().max()
    assert torch.equal(attack.weights("a red ball", 0).sign(), -attack.gradient(0 * at, "a red ball", 0, 0).sign())


def test_the_margin_by_hand() -> None:
    """3 - 1 + 5 = 7, and 0 - 6 + 5 below zero: their mean 3.5."""
    logits = torch.tensor([[3.0, 1.0, -2.0], [0.0, 6.0, 2.0]])
    assert float(margin(logits, 0, 5.0)) == 3.5


def test_words_are_drawn_by_their_weights() -> None:
    """Weights of 1 to 3 in two places, of 4,000 draws: 25% and 75%, four standard deviations being 2.7 points."""
    words = Words(("one", "two"), (torch.arange(2),))
    weights = torch.tensor([[1.0, 3.0], [3.0, 1.0]]).log()
    draws = [drawn_words(weights, words, generator(0, "draw", n)) for n in range(4000)]
    for place, word in ((0, "two"), (1, "one")):
        assert abs(sum(draw[place] == word for draw in draws) / 4000 - 0.75) < 0.028


# Whom, and what came of it.


def test_short_prompts_have_their_article() -> None:
    assert targets_of(["ball", "orange cone"], "a photo of {}") == [
        Target("ball", "a photo of a ball"),
        Target("orange cone", "a photo of an orange cone"),
    ]
    with pytest.raises(UserError, match=r"the template 'a photo' has no \{\}"):
        targets_of(["ball"], "a photo")


def test_long_prompts_are_read_and_bad_files_named(tmp_path: Path) -> None:
    file = tmp_path / "long.csv"
    file.write_text('prompt,label,classname\n"The ball is round, red.",0,ball\n')
    assert read_targets(file) == [Target("ball", "The ball is round, red.")]
    file.write_text("classname,prompt\nball,a ball, on a mat\n")
    with pytest.raises(UserError, match=r"long\.csv, line 2: 3 cells, .*; put cells that hold ',' in quotes;"):
        read_targets(file)
    file.write_text("prompt,classname\nA ball.,\n")
    with pytest.raises(
        UserError, match=r"long\.csv: line 2: expected a prompt and a classname, found 'A ball.' and ''"
    ):
        read_targets(file)
    with pytest.raises(UserError, match=r"nothing\.csv: no such file"):
        read_targets(tmp_path / "nothing.csv")


def test_a_class_is_called_by_what_tells_it_from_others() -> None:
    """ImageNet has a "maillot" and a "maillot, tank suit", and two cranes, which are one target."""
    names = names_of(["tench, Tinca tinca", "crane", "maillot", "maillot, tank suit", "crane"])
    assert names == ["tench", "crane", "maillot", "maillot, tank suit", "crane"]
    assert [one.name for one in targets_of(names, "{}")] == names[:4]


def test_shares_are_of_attacked_prompts() -> None:
    """Two of four prompts attacked: as they are 1 of 4 images wrong, with found words 3 of 4.

    A third class stands in no share, nor a second prompt of the first.
    """

    def rows(name: str, kind: str, *wrong: bool, prompt: str = "one") -> list[dict]:
        same = {"model": "base", "class": name, "prompt": prompt, "kind": kind}
        return [{**same, "number": n, "wrong": w} for n, w in enumerate(wrong)]

    found = summary(
        [
            *rows("ball", "clean", False, True),
            *rows("ball", "attack", True, True),
            *rows("cone", "clean", False, False),
            *rows("cone", "attack", False, True),
            *rows("star", "clean", True, True),
            *rows("ball", "clean", True, True, prompt="another"),
        ],
        resamples=100,
        seed=0,
    )
    assert (found["base"]["prompts"], found["base"]["attacked"]) == (4, 2)
    assert found["base"]["rates"]["clean"] == {"wrong": 0.25, "low": None, "high": None, "images": 4}
    assert found["base"]["rates"]["attack"]["wrong"] == 0.75
    assert "base            2 of 4   + found words        75.0%   none" in attack_table(found)


def test_attack_on_a_finished_run(project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All classes and both models, twice the same; a wrong name is one line."""
    monkeypatch.chdir(project)
    monkeypatch.setenv("COMAT_WORK_DIR", str(tmp_path / "work"))
    folder = save_classifier(tmp_path / "classifier")
    asked = ["attack", "--classifier", str(folder), "--template", "{}", "--words", "2", "--iterations", "2"]
    asked += ["--samples", "2", "--out", str(tmp_path / "out")]
    done = CliRunner().invoke(app, asked)
    assert done.exit_code == 0, done.output
    rows = read_table(tmp_path / "out/rows.parquet", ROWS)
    assert {(row["model"], row["kind"]) for row in rows} >= {("base", "clean"), ("tuned", "clean")}
    assert {row["class"] for row in rows} == {"ball", "cone", "star"}
    said = json.loads((tmp_path / "out/attack.json").read_text())
    assert said["models"]["base"]["prompts"] == 3 and said["kappa"] == 30
    text = (tmp_path / "out/attack.json").read_bytes()
    again = CliRunner().invoke(app, asked)
    assert again.exit_code == 0 and (tmp_path / "out/attack.json").read_bytes() == text
    unknown = next(
        n for n in ("ball", "cone", "star") if all(row["kind"] == "clean" for row in rows if row["class"] == n)
    )
    nothing = CliRunner().invoke(app, [*asked, "--class", unknown])
    assert nothing.exit_code == 1 and "the classifier knew no class in what both models first drew" in nothing.output
    (tmp_path / "long.csv").write_text("prompt,classname\na ball on a table,ball\n")
    long = [*asked[:3], *asked[5:], "--prompts", str(tmp_path / "long.csv"), "--class", "cone"]
    none = CliRunner().invoke(app, long)
    assert none.exit_code == 1 and "no prompt is of cone: give one of each" in none.output
    assert (tmp_path / "out/attack.json").read_bytes() == text  # of the run before, as its pictures are
    wrong = CliRunner().invoke(app, [*asked, "--class", "cube"])
    assert wrong.exit_code == 1 and "the classifier has no class 'cube': it has 3, ball, cone, star" in wrong.output


def test_classes_that_are_done_are_not_done_again(tmp_path: Path) -> None:
    """What a run that was ended has kept is taken as it is; nothing is there to attack with."""
    rows = [{"model": "base", "class": "ball", "kind": "clean", "number": 0, "wrong": True}]
    (tmp_path / "base-00000.json").write_text(json.dumps(rows))
    nobody: Any = None
    assert run("base", nobody, [Target("ball", "a ball")], 1, tmp_path) == rows
