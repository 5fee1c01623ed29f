"""Several captioners teach together: the gradient is the sum, each has a column, and none judges unasked."""

from __future__ import annotations

import csv
import os
import shutil
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from comat.captioners.load import Mixture, Teacher, captioner_columns, load_captioner, load_teacher
from comat.diffusion.load import load_backbone
from comat.errors import UserError
from comat.method.concept_activation import captioners_loss
from comat.models.names import named_models, with_revisions
from comat.models.record import write_lock
from comat.params import SHOWS, Params, VqaScoreParams
from comat.randomness import generator
from comat.tokenizers import find_columns
from comat.training.data import TrainingData
from comat.training.trainer import Trainer
from tests.test_replay import build, has_the_full_gradient
from tests.tiny_models import one_captioner

ASKS = {"captioner_question": SHOWS, "captioner_answer": "Yes"}
PROMPTS = ["a red ball", "two green stars"]
ALONE = {"alpha": 0.0, "beta": 0.0, "lambda_adv": 0.0, "image_batch": 0}


class Brightness:
    """Says twice the mean of an image for a prompt of two tokens."""

    def log_likelihood(self, images: Tensor, prompts) -> tuple[Tensor, Tensor]:
        mean = images.mean((1, 2, 3))[:, None].expand(-1, 2)
        return mean, torch.ones_like(mean, dtype=torch.bool)

    def pieces(self, prompt: str) -> list[str]:
        return [prompt, ""]


def listed(tiny: Path, *weights: float) -> list[dict]:
    """BLIP, LLaVA asked about the prompt, and CLIP."""
    own = [one_captioner("blip", tiny / "blip"), one_captioner("llava", tiny / "llava", **ASKS)]
    own.append(one_captioner("clip_similarity", tiny / "clip"))
    return [{**one.model_dump(), "weight": weight} for one, weight in zip(own, weights, strict=True)]


def test_the_loss_of_a_mixture_by_hand() -> None:
    """An image of 0.5: the mean over tokens is -0.5, the sum -1; at weights 2 and 3 together -2.5 and -5."""
    mixture = Mixture([Teacher("a", Brightness(), 2.0), Teacher("b", Brightness(), 3.0)])
    seen = torch.full((1, 3, 4, 4), 0.5)
    for reduction, each in (("mean", -0.5), ("sum", -1.0)):
        total, own = captioners_loss(mixture, seen, ["x"], reduction)
        assert_close(total, torch.tensor([5 * each]))
        assert {name: value.item() for name, value in own.items()} == {"a": each, "b": each}
    total, own = captioners_loss(Brightness(), seen, ["x"], "mean")
    assert_close(total, torch.tensor([-0.5]))
    assert own == {}


def test_the_gradient_of_a_mixture_is_the_sum(make_params, tiny: Path) -> None:
    weights = (2.0, 0.5, 0.1)
    params = make_params(captioner=listed(tiny, *weights), captioner_model=None)
    mixture = load_teacher(params, torch.device("cpu"), torch.float32)
    seen = torch.rand(2, 3, 24, 24, generator=generator(0, "images")).requires_grad_()
    total, own = captioners_loss(mixture, seen, PROMPTS, "mean")
    (found,) = torch.autograd.grad(total.sum(), seen)
    expected, values = torch.zeros_like(found), {}
    for one, weight, name in zip(params.captioners, weights, ("blip", "vqa", "clip_similarity"), strict=True):
        captioner = load_captioner(one, torch.device("cpu"), torch.float32)
        loss, _ = captioners_loss(captioner, seen, PROMPTS, "mean")
        (part,) = torch.autograd.grad(loss.sum(), seen)
        assert part.abs().amax((1, 2, 3)).min() > 0
        expected, values[name] = expected + weight * part, loss.detach()
    assert_close(found, expected)
    assert_close(own, values)


@pytest.mark.parametrize("checkpointed", [False, True])
def test_a_model_that_is_asked_in_two_ways_is_loaded_once(make_params, tiny: Path, checkpointed: bool) -> None:
    """As captioner and about the prompt: what both say is what each says by itself."""
    both = [one_captioner("llava", tiny / "llava", **asked).model_dump() for asked in ({}, ASKS)]
    params = make_params(captioner=both, captioner_model=None)
    mixture = load_teacher(params, torch.device("cpu"), torch.float32, checkpointed=checkpointed)
    first, second = (teacher.captioner for teacher in mixture.teachers)
    assert first.model is second.model
    seen = torch.rand(2, 3, 24, 24, generator=generator(0, "images"))
    _, own = captioners_loss(mixture, seen, PROMPTS, "mean")
    alone = [load_captioner(one, torch.device("cpu"), torch.float32) for one in params.captioners]
    assert alone[0].model is not alone[1].model
    for (name, value), captioner in zip(own.items(), alone, strict=True):
        assert_close(value, captioners_loss(captioner, seen, PROMPTS, "mean")[0], msg=name)


def test_a_mixture_is_replayed_like_one(make_params, tiny: Path) -> None:
    step, lora, batch = build(make_params(captioner=listed(tiny, 1.0, 0.5, 0.1), captioner_model=None, **ALONE))
    values = has_the_full_gradient(step, lora, batch)
    parts = values["i2t_blip"] + 0.5 * values["i2t_vqa"] + 0.1 * values["i2t_clip_similarity"]
    assert values["i2t"] == pytest.approx(values["loss"]) == pytest.approx(parts, rel=1e-5)


def test_each_captioner_has_its_column(make_params, project: Path, tiny: Path, tmp_path: Path) -> None:
    params = make_params(captioner=listed(tiny, 1.0, 1.0, 1.0), captioner_model=None, train_steps=1)
    data, work = project / "data", tmp_path / "work"
    folders = [
        data / name for name in ("prompts", "entities", "reference_latents", "image_latents", "caption_entities")
    ]
    work.mkdir()
    rows = TrainingData(
        params, params.discriminator_input, params.train.guard, *folders, find_columns(params.base_model)
    )
    trainer = Trainer(params, load_backbone(params, data / "warmup"), rows, work)
    trainer.run()
    trainer.export(tmp_path / "out")
    (row,) = csv.DictReader((tmp_path / "out/curves.csv").open())
    names = ["i2t_blip", "i2t_vqa", "i2t_clip_similarity"]
    assert list(row) == ["iteration", "loss", "i2t", *names, *list(row)[6:]]
    assert float(row["i2t"]) == pytest.approx(sum(float(row[name]) for name in names), rel=1e-4)


def test_captioners_of_one_kind_are_numbered(make_params, tiny: Path) -> None:
    twice = [one_captioner("blip", tiny / "blip").model_dump(), one_captioner("blip", tiny / "blip").model_dump()]
    assert captioner_columns(make_params(captioner=twice, captioner_model=None)) == ["blip", "blip_2"]
    assert captioner_columns(make_params()) == []


def test_every_captioner_is_recorded_with_a_revision_of_its_own(make_params, tiny: Path) -> None:
    params = make_params(captioner=listed(tiny, 1.0, 1.0, 1.0), captioner_model=None)
    named = {model.key: model for model in named_models(params) if model.key.startswith("captioner")}
    assert [model.role for model in named.values()] == [f"captioner_{place}_model" for place in range(3)]
    assert [model.kinds for model in named.values()] == [("blip",), (), ("clip",)]
    pinned: Params = with_revisions(params, {key: f"commit of {key}" for key in named})
    assert [one.captioner_revision for one in pinned.captioners] == [f"commit of {key}" for key in named]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"captioner": []}, "at least 1 item"),
        ({"captioner": "llava"}, "Input should be 'blip', 'git', 'vlm' or 'clip_similarity'"),
        ({"captioner_model": None}, "captioner_model is null: expected a hub id or folder"),
        ({"captioner": "vlm", "captioner_answer": "Yes"}, "expected {prompt} in one of them"),
        ({"captioner": "vlm", "captioner_question": SHOWS}, "expected {prompt} in one of them"),  # it would be copied
        (
            {"captioner_answer": "Yes"},
            "captioner_answer is 'Yes': expected '{prompt}', since captioner blip is asked noth",
        ),
        (
            {"captioner": "git", "captioner_question": SHOWS},
            "captioner_question is .*since captioner git is asked nothing",
        ),
        (
            {
                "captioner": "vlm",
                "captioner_question": SHOWS,
                "captioner_answer": "Yes",
                "caption_prefix": "a photo of",
            },
            "caption_prefix is 'a photo of': expected '', since nothing stands before the answer",
        ),
        (
            {"captioner": "clip_similarity", "caption_prefix": "a photo of"},
            "caption_prefix is 'a photo of': expected '', since CLIP's similarity is of the prompt alone",
        ),
    ],
)
def test_what_a_captioner_cannot_be(make_params, changes: dict, message: str) -> None:
    """Neither what is no captioner, nor what would be set and not read."""
    with pytest.raises(ValueError, match=message):
        make_params(**changes)


def test_a_list_names_its_models_itself(make_params, tiny: Path) -> None:
    with pytest.raises(ValueError, match="expected null, since captioner is a list"):
        make_params(captioner=listed(tiny, 1.0, 1.0, 1.0))
    own = {"captioner": listed(tiny, 1.0, 1.0, 1.0), "captioner_model": None, "caption_prefix": "a photo of"}
    with pytest.raises(ValueError, match="caption_prefix is 'a photo of': expected '', since captioner is a list"):
        make_params(**own)


def test_no_teacher_judges_unless_asked_for_by_name(make_params, tiny: Path) -> None:
    own = {"captioner": "vlm", "captioner_model": str(tiny / "llava")}
    values = make_params().evaluate.model_dump()
    judge = {"vqa_model": str(tiny / "llava"), "vqa_revision": None}
    with pytest.raises(ValueError, match=r"evaluate\.vqa_score\.vqa_model is .*, which is a captioner of training too"):
        make_params(**own, evaluate={**values, "vqa_score": judge})
    asked = make_params(**own, evaluate={**values, "vqa_score": {**judge, "same_as_teacher": True}})
    assert asked.evaluate.vqa_score.same_as_teacher
    make_params(evaluate={**values, "vqa_score": judge})
    for other in (f"{tiny}/llava/", f"{tiny}/./llava", os.path.relpath(tiny / "llava")):
        with pytest.raises(ValueError, match=r"evaluate\.vqa_score\.vqa_model is .*, which is a captioner of training"):
            make_params(**own, evaluate={**values, "vqa_score": {**judge, "vqa_model": other}})


def test_a_judge_does_not_answer_by_the_prompt(tiny: Path) -> None:
    with pytest.raises(ValueError, match=r"vqa_answer is .*: expected no"):
        VqaScoreParams(vqa_model="m", vqa_revision=None, vqa_answer="{prompt}")


def test_neither_guard_nor_geneval_is_the_reward(make_params, tiny: Path) -> None:
    """The guard against what pleases the reward alone would be that reward."""
    clip = {"clip_model": str(tiny / "clip"), "clip_revision": None}
    own = {"captioner": "clip_similarity", "captioner_model": str(tiny / "clip")}
    plain = make_params()
    guard = plain.train.guard.model_dump() | clip | {"every": 1, "prompts": 2, "metric": "clip_score"}
    guard |= {"feature_model": str(tiny / "dino"), "feature_revision": None}
    with pytest.raises(ValueError, match=r"train\.guard\.clip_model is .*, which is a captioner of training too"):
        make_params(**own, train=plain.train.model_dump() | {"guard": guard})
    judge = clip | {"detector_model": "d", "detector_revision": None}
    samples = plain.samples.model_dump()
    samples["benchmarks"] |= {"geneval": "geneval.jsonl"}
    with pytest.raises(ValueError, match=r"evaluate\.geneval\.clip_model is .*, which is a captioner of") as caught:
        make_params(**own, samples=samples, evaluate=plain.evaluate.model_dump() | {"geneval": judge})
    assert "same_as_teacher" not in str(caught.value)  # which it has not


def test_a_copy_of_the_teacher_is_the_teacher(make_params, tiny: Path, tmp_path: Path) -> None:
    """By the sha256 of its files, before anything is drawn."""
    shutil.copytree(tiny / "clip", tmp_path / "other")
    judge = {"clip_model": str(tmp_path / "other"), "clip_revision": None}
    values = make_params().evaluate.model_dump()
    own = {"captioner": "clip_similarity", "captioner_model": str(tiny / "clip")}
    params = make_params(**own, evaluate={**values, "clip_score": judge})
    with pytest.raises(UserError, match=r"evaluate\.clip_score\.clip_model is .*/other'?.*captioner of training too"):
        write_lock(params, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", ["clip_score", "hps_v2", "pick_score"])
def test_no_clip_judges_what_it_taught(make_params, tiny: Path, name: str) -> None:
    own = {"captioner": "clip_similarity", "captioner_model": str(tiny / "clip")}
    values, judge = make_params().evaluate.model_dump(), {"clip_model": str(tiny / "clip"), "clip_revision": None}
    with pytest.raises(ValueError, match=rf"evaluate\.{name}\.clip_model is .*, which is a captioner of training too"):
        make_params(**own, evaluate={**values, name: judge})
    asked = make_params(**own, evaluate={**values, name: {**judge, "same_as_teacher": True}})
    assert getattr(asked.evaluate, name).said == ", a teacher of training"
    assert getattr(make_params(evaluate={**values, name: judge}).evaluate, name).said == ""
