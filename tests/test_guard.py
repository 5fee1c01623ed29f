"""The guard: prompts that nothing trains on, the best LoRA kept, patience, and the same bytes after a kill."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest

from comat.diffusion.load import load_backbone
from comat.diffusion.lora import add_lora
from comat.errors import UserError
from comat.judges.benchmark import Drawn, Score
from comat.judges.frechet import Features
from comat.params import GuardParams, Params
from comat.randomness import generator
from comat.tokenizers import find_columns
from comat.training.data import TrainingData
from comat.training.guard import Guard, load_guard, set_apart
from comat.training.trainer import Trainer
from tests.test_stages import params_of

ROWS = [
    {"id": f"{split}{i}", "text": "a red ball", "source": "s", "category": "c", "split": split}
    for split in ("train", "test")
    for i in range(9)
]


def guarded(project: Path, tiny: Path, **changes: object) -> Params:
    """The project's parameters with a guard that sets two prompts apart and looks before every iteration."""
    params = params_of(project)
    own = {"every": 1, "prompts": 2, "feature_model": str(tiny / "features"), **changes}
    guard = GuardParams.model_validate(params.train.guard.model_dump() | own)
    return params.model_copy(update={"train": params.train.model_copy(update={"guard": guard})})


def load(params: Params, *rest: object) -> Guard | None:
    return load_guard(params.train.guard, params, params.train.device_batch, *rest)


def data_of(params: Params, project: Path) -> TrainingData:
    folders = [
        project / "data" / name
        for name in ("prompts", "entities", "reference_latents", "image_latents", "caption_entities")
    ]
    return TrainingData(
        params, params.discriminator_input, params.train.guard, *folders, find_columns(params.base_model)
    )


def trainer(params: Params, project: Path, work: Path) -> Trainer:
    work.mkdir(exist_ok=True)
    return Trainer(params, load_backbone(params, project / "data/warmup"), data_of(params, project), work)


def test_the_guard_s_prompts_are_drawn_from_the_training_split_by_seed(project: Path, tiny: Path) -> None:
    section = guarded(project, tiny, prompts=4).train.guard
    ids = [row["id"] for row in set_apart(ROWS, section, 0)]
    assert len(set(ids)) == 4 and all(id.startswith("train") for id in ids)
    assert ids == [row["id"] for row in set_apart(ROWS, section, 0)]
    assert ids != [row["id"] for row in set_apart(ROWS, section, 1)]
    assert set_apart(ROWS, section.model_copy(update={"every": 0}), 0) == []


def test_no_step_trains_on_them(project: Path, tiny: Path) -> None:
    """Of four training prompts two are set apart; eight iterations of three prompts show the other two alone."""
    params = guarded(project, tiny)
    data = data_of(params, project)
    apart = {row["text"] for row in data.guarded}
    trained = {text for iteration in range(8) for text in data.batch(iteration).prompts}
    assert len(apart) == 2 == len(trained)
    assert not apart & trained
    for prompts in (4, 5):
        with pytest.raises(UserError, match=r"too few training prompts: .* sets 4 apart, which leaves 0"):
            data_of(guarded(project, tiny, prompts=prompts), project)


class Verdicts:
    """A judge that gives the images of each look the next of its scores."""

    name, evaluators = "verdicts", {}

    def __init__(self, scores: Sequence[float]) -> None:
        self.remaining = list(scores)

    def covers(self, image: Drawn) -> bool:
        return True

    def scores(self, images: Sequence[Drawn], folder: Path) -> Iterator[Score]:
        assert all((folder / image.path).is_file() for image in images)
        score = self.remaining.pop(0)
        return iter([Score(score - 0.1), Score(score + 0.1)])


def verdicts(project: Path, tiny: Path, work: Path, scores: Sequence[float], **changes: object) -> Guard:
    """A guard of two prompts whose looks have these scores."""
    params = guarded(project, tiny, **changes)
    backbone = load_backbone(params, project / "data/warmup")
    add_lora(backbone, 2, generator(0, "lora"))
    features = Features(str(tiny / "features"), None, params.resolution)
    originals = [np.full((16, 16, 3), value, np.uint8) for value in (0, 100, 200)]
    section, size = params.train.guard, params.train.device_batch
    return Guard(section, params, size, backbone, ROWS[:2], Verdicts(scores), features, originals, work)


def set_all(guard: Guard, value: float) -> None:
    for name, weight in guard.backbone.denoiser.named_parameters():
        if "lora_" in name:
            weight.data.fill_(value)


@pytest.mark.parametrize(("keep", "kept", "weight"), [("best", 2, 2.0), ("last", 8, 8.0)])
def test_the_best_lora_is_kept_and_patience_ends(
    project: Path, tiny: Path, tmp_path: Path, keep: str, kept: int, weight: float
) -> None:
    """Looks before iterations 0, 2, 4, 6, 8 with weights 0, 2, 4, 6, 8: the highest score, 0.5, is that of 2, and 4
    only equals it. Three looks without a higher one end the training: at 8. Iteration 7 is no look.
    """
    guard = verdicts(project, tiny, tmp_path, [0.2, 0.5, 0.5, 0.1, 0.3], every=2, patience=3, keep=keep)
    stopped = []
    for iteration in range(9):
        set_all(guard, iteration / 1000)
        stopped.append(guard.stops(iteration))
    guard.look(8)  # the end of training: seen already
    assert stopped == [False] * 8 + [True]
    assert [row["iteration"] for row in guard.rows] == [0, 2, 4, 6, 8]
    assert [row["score"] for row in guard.rows] == pytest.approx([0.2, 0.5, 0.5, 0.1, 0.3])
    assert all(math.isfinite(row["frechet"]) and row["frechet"] > 0 for row in guard.rows)
    assert guard.choose()["iteration"] == kept
    found = [w.mean().item() for name, w in guard.backbone.denoiser.named_parameters() if "lora_" in name]
    assert found == pytest.approx([weight / 1000] * len(found), rel=1e-6)


def test_a_prompt_that_the_judge_does_not_know_is_named(project: Path, tiny: Path, tmp_path: Path) -> None:
    params = guarded(project, tiny)
    rows = [{**ROWS[0], "text": "an astronaut rides a horse"}, ROWS[1]]
    data = data_of(params, project)
    with pytest.raises(UserError, match="metric is oracle, which cannot judge the training prompt 'an astronaut"):
        load(params, load_backbone(params, project / "data/warmup"), rows, data.reference, tmp_path)


def test_clip_score_guards_where_there_is_no_oracle(project: Path, tiny: Path, tmp_path: Path) -> None:
    params = guarded(project, tiny, metric="clip_score", clip_model=str(tiny / "clip"))
    backbone = load_backbone(params, project / "data/warmup")
    add_lora(backbone, 2, generator(0, "lora"))
    data = data_of(params, project)
    guard = load(params, backbone, data.guarded, data.reference, tmp_path)
    guard.look(0)
    assert 0 <= guard.rows[0]["score"] <= 100
    assert guard.rows[0]["frechet"] >= 0


def test_a_guard_without_its_models_is_refused(project: Path, tiny: Path) -> None:
    with pytest.raises(ValueError, match="feature_model is null: expected a hub id or folder, since every is 1"):
        guarded(project, tiny, feature_model=None)
    with pytest.raises(ValueError, match="clip_model is null"):
        guarded(project, tiny, metric="clip_score")
    assert guarded(project, tiny, every=0, feature_model=None).train.guard.feature_model is None


FILES = ("lora/pytorch_lora_weights.safetensors", "discriminator/discriminator.safetensors", "curves.csv", "guard.csv")


def test_interrupted_training_ends_with_the_same_bytes_and_looks(project: Path, tiny: Path, tmp_path: Path) -> None:
    """Stopped in iteration 3, after the look before it; the state is that after iteration 2, without that look."""
    params = guarded(project, tiny)
    whole = trainer(params, project, tmp_path / "whole")
    whole.run()
    whole.export(tmp_path / "out")
    broken = trainer(params, project, tmp_path / "work")
    draw = broken.data.batch

    def batch(iteration: int):
        if iteration == 3:
            raise MemoryError  # an interruption would save the state of this very iteration
        return draw(iteration)

    broken.data.batch = batch
    with pytest.raises(MemoryError):
        broken.run()
    assert [row["iteration"] for row in broken.guard.rows] == [0, 1, 2, 3]
    again = trainer(params, project, tmp_path / "work")
    assert [row["iteration"] for row in again.guard.rows] == [0, 1, 2]
    again.run()
    again.export(tmp_path / "again")
    for file in FILES:
        assert (tmp_path / "again" / file).read_bytes() == (tmp_path / "out" / file).read_bytes(), file
    with (tmp_path / "out/guard.csv").open() as file:
        assert [row["iteration"] for row in csv.DictReader(file)] == ["0", "1", "2", "3", "4"]
    kept = json.loads((tmp_path / "out/metrics.json").read_text())["train"]["guard"]
    assert kept == whole.guard.best_row


def test_no_guard_leaves_a_table_without_rows_and_no_metric(project: Path) -> None:
    assert (project / "data/train/guard.csv").read_text() == "iteration,score,frechet\n"
    assert "guard" not in json.loads((project / "data/train/metrics.json").read_text())["train"]
