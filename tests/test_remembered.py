"""Nothing is judged twice: what judges said is kept by judge and image, whoever asks, and whatever became of a run."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from ruamel.yaml import YAML

from comat.errors import UserError
from comat.evaluation import judging as judging_module
from comat.evaluation.featured import Batch, Featured, Pictures, key_of
from comat.evaluation.judging import Judging
from comat.evaluation.remembered import Features, Scores, store_folder
from comat.evaluation.run import evaluate
from comat.evaluation.scores import SCORES, batches_by_model, drawn, score
from comat.judges.benchmark import Drawn, Score
from comat.judges.later import Later
from comat.params import VqaParams, load
from comat.randomness import python_random
from comat.running.distributed import ALONE
from comat.storage.tables import read_table
from tests.conftest import ROOT, judging_of, run
from tests.imports import project_imports
from tests.processes import finish, start

CPU = torch.device("cpu")


@pytest.fixture
def judging(project: Path, monkeypatch: pytest.MonkeyPatch) -> Judging:
    """Oracle, CLIPScore and the Fréchet distance on small models, in the project's folder."""
    monkeypatch.chdir(project)
    return judging_of(load("params.yaml"))


def judged(judging: Judging, out: Path) -> dict:
    return evaluate(judging, Path("data/base_samples"), Path("data/samples"), out)


def doctored(store: Path, value: float) -> None:
    """Every score in the store is `value` from now on: what is read there was not judged again."""
    for folder in {path.parent for path in store.rglob("*.jsonl")}:
        known = Scores(folder)._known
        for path in folder.glob("*.jsonl"):
            path.unlink()
        with Scores(folder) as scores:
            scores.add((key, replace(found, value=value)) for key, found in known.items())


def test_what_was_judged_is_not_judged_again(judging: Judging, nothing_judged: Path, tmp_path: Path) -> None:
    """Whatever of the summary changes, and from whichever folder it comes."""
    first = judged(judging, tmp_path / "a")
    assert judged(judging, tmp_path / "b") == first
    assert (tmp_path / "a/scores.parquet").read_bytes() == (tmp_path / "b/scores.parquet").read_bytes()
    doctored(nothing_judged, 0.125)
    section = judging.section.model_copy(update={"bootstrap": 51, "grid_pairs": 2})
    again = judged(replace(judging, section=section), tmp_path / "c")
    assert again["oracle"]["total"]["base"] == again["clip_score"]["total"]["tuned"] == 0.125
    assert again["frechet"] == first["frechet"]
    scores, _ = score(
        replace(judging, section=section.model_copy(update={"batch_size": 1})), drawn(Path("data/samples"))
    )
    assert {row["value"] for row in scores} == {0.125}
    shutil.copytree("data/base_samples", tmp_path / "elsewhere")
    moved = evaluate(judging, tmp_path / "elsewhere", Path("data/samples"), tmp_path / "d")
    assert moved["clip_score"]["total"]["base"] == 0.125


@pytest.mark.parametrize("seed", range(3))
def test_what_a_kill_left_ends_with_the_same_bytes(
    judging: Judging, nothing_judged: Path, tmp_path: Path, seed: int
) -> None:
    """At a random moment: of what is remembered the beginning, cut anywhere, and some of the batches of features."""
    judged(judging, tmp_path / "whole")
    chance = python_random(seed, "kill")
    for path in sorted(nothing_judged.rglob("*.jsonl")):
        path.write_bytes(path.read_bytes()[: chance.randrange(path.stat().st_size)])
    for path in sorted(nothing_judged.rglob("*.safetensors"))[chance.randrange(2) :]:
        path.unlink()
    judged(judging, tmp_path / "again")
    for name in ("metrics.json", "scores.parquet", "evaluators.json", "categories.csv"):
        assert (tmp_path / "again" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes(), name


def test_another_image_or_prompt_is_judged(judging: Judging, tmp_path: Path, nothing_judged: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (16, 16, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "0.png")
    image = Drawn("base", "a", "a red ball", "t2i", "color", 0, str(tmp_path / "0.png"))
    score(judging, [image])
    doctored(nothing_judged, 0.125)
    Image.fromarray(255 - pixels).save(tmp_path / "1.png")
    others = [replace(image, path=str(tmp_path / "1.png")), replace(image, text="a blue cube")]
    assert {row["value"] for row in score(judging, [image])[0]} == {0.125}
    for other in others:
        assert 0.125 not in {row["value"] for row in score(judging, [other])[0]}


def test_another_judge_knows_nothing_of_it(project: Path, judging: Judging, tiny: Path, tmp_path: Path) -> None:
    """Its model's files, its parameters, its file of questions and the code that judges make a judge."""
    own = {"clip": "x"}
    before = judging.judge("clip_score", own)
    section = judging.section.model_copy(update={"bootstrap": 7, "oracle": False, "batch_size": 1})
    assert replace(judging, section=section, seed=5, resolution=8).judge("clip_score", own) == before
    shutil.copytree(tiny / "clip", tmp_path / "clip")
    weights = tmp_path / "clip/model.safetensors"
    clip = judging.section.clip_score.model_copy(update={"clip_model": str(tmp_path / "clip")})
    moved = replace(judging, section=judging.section.model_copy(update={"clip_score": clip}))
    found = moved.judge("clip_score", own)
    weights.write_bytes(weights.read_bytes()[:-1] + b"\x00")
    assert moved.judge("clip_score", own)["models"] != found["models"]
    assert replace(judging, device=torch.device("cuda")).judge("clip_score", own) != before


def test_a_file_of_questions_is_part_of_its_judge(judging: Judging, tmp_path: Path, tiny: Path) -> None:
    (tmp_path / "dpg.csv").write_text("a")
    section = judging.section.model_copy(update={"dpg": VqaParams(vqa_model=str(tiny / "clip"), vqa_revision=None)})
    files = judging.files.model_copy(update={"dpg": str(tmp_path / "dpg.csv")})
    own = replace(judging, section=section, files=files)
    before = own.judge("dpg", {})
    (tmp_path / "dpg.csv").write_text("b")
    assert own.judge("dpg", {}) != before


JUDGES = (
    *(
        "evaluation.captioner",
        "evaluation.dpg",
        "evaluation.geneval",
        "evaluation.geneval2",
        "evaluation.t2i_compbench",
        "evaluation.tifa",
    ),
    *("judges.oracle", "judges.clip_score", "judges.vqa_score", "judges.frechet", "judges.inception", "judges.renders"),
)
PLUMBING = tuple(
    f"comat/{name}" for name in ("__init__.py", "errors.py", "params/", "diffusion/", "models/", "storage/")
)
"""What judges import that says nothing of an image: errors, checks of parameters and files, downloads."""


def test_the_code_that_judges_is_part_of_every_judge() -> None:
    listed = [f"comat/{part}" for part in judging_module.JUDGING]
    assert [part for part in listed if not (ROOT / part).exists()] == []
    files = {file for name in JUDGES for file in project_imports(f"comat.{name}")}
    left_out = [f for f in files if not any(f == part or f.startswith(f"{part}/") for part in listed)]
    assert [file for file in sorted(left_out) if not file.startswith(PLUMBING)] == []


FOUND = {f"{n:02d}-é": Score(n / 7, {"wrong": "a\nb", "p": 0.1 * n}) for n in range(5)}


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.data())
def test_what_a_torn_file_still_holds_is_true(tmp_path: Path, data: st.DataObject) -> None:
    """Cut anywhere, or with any one byte changed: every score that is read is one that was written."""
    shutil.rmtree(tmp_path / "judge", ignore_errors=True)
    (tmp_path / "judge").mkdir()
    with Scores(tmp_path / "judge") as scores:
        scores.add(FOUND.items())
    (path,) = (tmp_path / "judge").glob("*.jsonl")
    whole = path.read_bytes()
    at = data.draw(st.integers(0, len(whole) - 1))
    if data.draw(st.booleans()):
        path.write_bytes(whole[:at])
        expected = whole[:at].count(b"\n")
    else:
        path.write_bytes(whole[:at] + bytes([whole[at] ^ data.draw(st.integers(1, 255))]) + whole[at + 1 :])
        expected = len(FOUND) - 2  # a changed end of line takes two with it
    read = Scores(tmp_path / "judge")._known
    assert read.items() <= FOUND.items() and len(read) >= expected
    with Scores(tmp_path / "judge") as scores:
        scores.add(FOUND.items())
    assert Scores(tmp_path / "judge")._known == FOUND


def test_runs_side_by_side_write_past_each_other(tmp_path: Path) -> None:
    (first, a), (second, b) = list(FOUND.items())[:2]
    with Scores(tmp_path) as one, Scores(tmp_path) as two:
        one.add([(first, a)])
        two.add([(second, b), (first, a)])
        one.add([(second, b)])
        assert Scores(tmp_path)._known == {first: a, second: b}  # though neither has ended


def features_of(tmp_path: Path, batches: list[Batch], load: Callable[[], torch.nn.Module]) -> list[torch.Tensor]:
    return Featured(Later("x", load), Features(tmp_path), CPU, ALONE).of(batches, "x")[0]


class Sum(torch.nn.Module):
    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return images.double().sum((2, 3))


def batch(*values: int) -> Batch:
    images = [np.full((2, 2, 3), value, np.uint8) for value in values]
    return Batch(key_of(*values), lambda: Pictures(images, {"unreadable": 1}))


def test_features_are_remembered_batch_by_batch(tmp_path: Path) -> None:
    """An image of 2 x 2 px of value v has features 4 v. What is torn is looked at again; what is there is not."""
    first = features_of(tmp_path, [batch(1, 2), batch()], Sum)
    assert [part.tolist() for part in first] == [[[4, 4, 4], [8, 8, 8]]]
    assert features_of(tmp_path, [batch(1, 2)], lambda: pytest.fail("loaded for nothing"))[0].equal(first[0])
    path = tmp_path / f"{batch(1, 2).key}.safetensors"
    whole = path.read_bytes()
    for torn in (b"", whole[:-1], whole[:-1] + bytes([whole[-1] ^ 1])):
        path.write_bytes(torn)
        assert features_of(tmp_path, [batch(1, 2)], Sum)[0].equal(first[0])
        assert path.read_bytes() == whole


def test_features_that_are_not_finite_are_an_error(tmp_path: Path) -> None:
    class Broken(Sum):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return super().forward(images) / (images.amax((1, 2, 3)) - 1)[:, None]

    with pytest.raises(UserError, match=r"its features of 1 of 2 images are not finite"):
        features_of(tmp_path, [batch(1, 2)], Broken)
    assert not list(tmp_path.iterdir())


def test_the_bases_batches_are_the_same_beside_whatever_else() -> None:
    base = [Drawn("base", str(n), "x", "s", "c", 0, f"{n}.png") for n in range(5)]
    other = [replace(image, model="tuned") for image in base[:3]]
    alone = batches_by_model(base, 2)
    assert [len(part) for part in alone] == [2, 2, 1]
    assert batches_by_model(base + other, 2)[:3] == alone


def test_the_store_outlives_the_copy_in_which_dvc_runs_an_experiment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("COMAT_JUDGED_DIR")
    copy = tmp_path / "project/.dvc/tmp/exps/tmp1a2b"
    copy.mkdir(parents=True)
    monkeypatch.chdir(copy)
    assert store_folder() == tmp_path / "project/.work/judged"
    monkeypatch.chdir(tmp_path / "project")
    assert store_folder() == Path(".work/judged")
    monkeypatch.setenv("COMAT_WORK_DIR", "/scratch")
    assert store_folder() == Path("/scratch/judged")


RESULTS = ("metrics.json", "evaluators.json", "categories.csv")


def same_results(root: Path, project: Path) -> None:
    for name in RESULTS:
        assert (root / "data/evaluate" / name).read_bytes() == (project / "data/evaluate" / name).read_bytes(), name
    ours, theirs = (read_table(f / "data/evaluate/scores.parquet", SCORES, ["path"]) for f in (root, project))
    assert ours == theirs


@pytest.fixture
def copy(project: Path, tmp_path: Path) -> Path:
    """The project before its stage evaluate, with an image a batch."""
    root = tmp_path / "p"
    shutil.copytree(project, root, ignore=shutil.ignore_patterns(".work"))
    shutil.rmtree(root / "data/evaluate")
    return root


def test_two_processes_judge_as_one_does(project: Path, copy: Path) -> None:
    params = load(copy / "params.yaml").model_dump()
    params["evaluate"]["batch_size"] = 3
    YAML().dump(params, copy / "params.yaml")
    alone = copy.parent / "alone"
    shutil.copytree(copy, alone)
    run("evaluate", alone)
    store = store_folder()
    shutil.rmtree(store)
    assert finish(start(2, run, "evaluate", copy)) == [0, 0]
    same_results(copy, alone)
    assert len(list(store.rglob("*.jsonl"))) == 2  # the main process alone writes, a file for each judge


def test_judging_that_was_killed_goes_on(project: Path, copy: Path) -> None:
    """SIGKILL once something is remembered; what follows takes the rest alone, and gives the same."""
    params = load(copy / "params.yaml").model_dump()
    params["evaluate"]["batch_size"] = 1
    YAML().dump(params, copy / "params.yaml")
    (process,), deadline = start(1, run, "evaluate", copy), time.monotonic() + 60
    while not list(store_folder().rglob("*.jsonl")) and time.monotonic() < deadline:
        time.sleep(0.001)
    process.kill()
    finish([process])
    assert not (copy / "data/evaluate/metrics.json").exists()
    assert list(store_folder().rglob("*.jsonl"))
    run("evaluate", copy)
    metrics = json.loads((copy / "data/evaluate/metrics.json").read_text())
    expected = json.loads((project / "data/evaluate/metrics.json").read_text())
    assert metrics["oracle"] == expected["oracle"]
    assert metrics["clip_score"]["total"] == pytest.approx(expected["clip_score"]["total"], abs=1e-3)
