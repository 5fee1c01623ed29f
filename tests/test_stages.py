"""All stages in a row on tiny models, through their own scripts; and what must hold of their outputs."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import DDPMScheduler, StableDiffusionXLPipeline, UNet2DConditionModel
from PIL import Image
from ruamel.yaml import YAML

from comat.diffusion.load import load_backbone
from comat.errors import UserError, main_guard
from comat.params import Params
from comat.randomness import generator, noise
from comat.storage.images import to_bytes
from comat.storage.tables import IMAGE_INDEX, read_safetensors, read_table
from comat.storage.tensor_store import TensorStore
from comat.tokenizers import find_columns
from comat.training.data import TrainingData
from comat.training.trainer import Trainer
from tests.conftest import ROOT, run


def params_of(project: Path) -> Params:
    from comat.params import load

    return load(project / "params.yaml")


def test_every_stage_leaves_its_outputs_and_no_work(project: Path) -> None:
    for out in (
        "corpora/manifest.json",
        "prompts/prompts.parquet",
        "prompts/dropped.parquet",
        "prompts/evaluation.parquet",
        "entities/entities.parquet",
        "warmup/unet/config.json",
        "reference_latents/index.parquet",
        "image_latents/index.parquet",
        "train/lora/pytorch_lora_weights.safetensors",
        "train/curves.csv",
        "base_samples/index.parquet",
        "samples/index.parquet",
        "evaluate/metrics.json",
        "evaluate/evaluators.json",
        "evaluate/judging.json",
        "evaluate/pictures/grid.png",
        "evaluate/pictures/attention-0.png",
        "evaluate/likelihood.json",
        "evaluate/report.html",
        "evaluate/model_card/README.md",
    ):
        assert (project / "data" / out).is_file(), out
    assert not [p for p in (project / ".work").rglob("*") if p.is_file() and p.suffix != ".lock"]


def test_metrics_have_the_promised_keys(project: Path) -> None:
    metrics = json.loads((project / "data/evaluate/metrics.json").read_text())
    for name in ("color", "total"):
        assert set(metrics["oracle"][name]) >= {"base", "tuned", "gain", "gain_low", "gain_high", "n"}
    assert metrics["oracle"]["total"]["n"] == 4
    assert set(metrics["frechet"]) == {"base", "tuned", "ratio", "n", "n_real", "left_out"}


def test_training_moves_the_lora(project: Path) -> None:
    state = read_safetensors(project / "data/train/lora/pytorch_lora_weights.safetensors")
    assert max(value.abs().max() for name, value in state.items() if "lora_B" in name or ".up." in name) > 0


def test_a_stock_pipeline_with_the_lora_draws_the_samples(project: Path) -> None:
    """The same noise, given to StableDiffusionXLPipeline with load_lora_weights, gives the same picture."""
    params = params_of(project)
    unet = UNet2DConditionModel.from_pretrained(project / "data/warmup/unet")
    pipe = StableDiffusionXLPipeline.from_pretrained(params.base_model, unet=unet)
    pipe.scheduler = DDPMScheduler.from_config(pipe.scheduler.config, clip_sample=False)
    pipe.load_lora_weights(project / "data/train/lora")
    pipe.set_progress_bar_config(disable=True)
    row = read_table(project / "data/samples/index.parquet", IMAGE_INDEX)[1]
    own = [generator(params.seed, "sample", row["prompt_id"], row["seed"])]
    side = params.resolution
    image = pipe(
        row["text"],
        height=side,
        width=side,
        original_size=(side, side),
        num_inference_steps=params.sampling_steps,
        guidance_scale=params.guidance_scale,
        latents=noise((4, side // 2, side // 2), own),
        generator=own,
        output_type="pt",
    ).images[0]
    drawn = np.asarray(Image.open(project / "data/samples" / row["path"])).astype(int)
    assert np.abs(drawn - to_bytes(image).astype(int)).max() <= 1


def test_base_and_tuned_share_their_noise_and_differ_by_the_lora_alone(project: Path, tmp_path: Path) -> None:
    """With a LoRA of zeros the two models draw the same pictures."""
    from safetensors.torch import save_file

    from comat.samples.draw import draw_tuned

    state = read_safetensors(project / "data/train/lora/pytorch_lora_weights.safetensors")
    (tmp_path / "lora").mkdir()
    file = tmp_path / "lora" / "pytorch_lora_weights.safetensors"
    save_file({name: torch.zeros_like(value) for name, value in state.items()}, file)
    data = project / "data"
    draw_tuned(params_of(project), 3, data / "base_samples", data / "warmup", file.parent, tmp_path / "out")
    rows = read_table(tmp_path / "out/index.parquet", IMAGE_INDEX)
    assert len(rows) == 4
    for row in rows:
        assert (tmp_path / "out" / row["path"]).read_bytes() == (data / "base_samples" / row["path"]).read_bytes()
    base, tuned = (read_safetensors(f / "attention.safetensors") for f in (data / "base_samples", tmp_path / "out"))
    assert base.keys() == tuned.keys() and all(torch.equal(base[id], tuned[id]) for id in base)


def test_reference_latents_do_not_depend_on_the_batch(project: Path, tmp_path: Path) -> None:
    values = YAML(typ="safe").load((project / "params.yaml").read_text())
    values["reference_latents"]["batch_size"] = 1
    for name in ("data", "lists"):
        shutil.copytree(project / name, tmp_path / name)
    YAML().dump(values, tmp_path / "params.yaml")
    run("reference_latents", tmp_path)
    ours, theirs = (TensorStore(root / "data/reference_latents") for root in (tmp_path, project))
    for id in theirs.ids:
        torch.testing.assert_close(ours[id]["latents"], theirs[id]["latents"], rtol=1e-4, atol=1e-5)


TRAINED = ("lora/pytorch_lora_weights.safetensors", "discriminator/discriminator.safetensors", "curves.csv")


def trainer(project: Path, work: Path) -> Trainer:
    params, data = params_of(project), project / "data"
    folders = [
        data / name for name in ("prompts", "entities", "reference_latents", "image_latents", "caption_entities")
    ]
    work.mkdir(exist_ok=True)
    rows = TrainingData(
        params, params.discriminator_input, params.train.guard, *folders, find_columns(params.base_model)
    )
    return Trainer(params, load_backbone(params, data / "warmup"), rows, work)


def test_training_twice_gives_the_same_bytes(project: Path, tmp_path: Path) -> None:
    again = trainer(project, tmp_path / "work")
    again.run()
    again.export(tmp_path / "out")
    for file in TRAINED:
        assert (tmp_path / "out" / file).read_bytes() == (project / "data/train" / file).read_bytes(), file


def test_objects_that_are_never_found_end_training(project: Path, tmp_path: Path, monkeypatch) -> None:
    """The first three entities have no mask. Where one has, training goes on, and says what share had none."""
    monkeypatch.setattr("comat.training.trainer.SOUGHT", 3)
    for mask in (False, True):
        again = trainer(project, tmp_path / f"work{mask}")
        assert again.segmenter is not None
        found = iter([mask])

        def masks(images: torch.Tensor, nouns, found=found) -> list[torch.Tensor]:
            rows = [[next(found, False) for _ in group] for group in nouns]
            return [torch.tensor(row, dtype=torch.bool)[:, None, None].expand(-1, *images.shape[2:]) for row in rows]

        monkeypatch.setattr(again.segmenter, "masks", masks)
        if mask:
            again.run()
            again.export(tmp_path / "out")
            said = json.loads((tmp_path / "out/metrics.json").read_text())["train"]
            sought = sum(row["masks"] for row in again.rows)
            assert said["masks_empty"] == (sought - 1) / sought < 1
        else:
            for _ in range(2):  # the second time goes on from the saved state
                with pytest.raises(UserError, match=r"the segmenter found none of the \d+ entities of \d iterations"):
                    again.run()


def test_what_the_segmenter_leaves_out_is_counted(project: Path, tmp_path: Path, monkeypatch) -> None:
    """Three boxes in each of the four iterations; the committed run of the project had none."""
    again = trainer(project, tmp_path / "work")
    assert again.segmenter is not None
    masks, calls = again.segmenter.masks, []

    def leaves_out(images: torch.Tensor, nouns) -> list[torch.Tensor]:
        again.segmenter.left_out += 3
        calls.append(len(again.rows))
        return masks(images, nouns)

    monkeypatch.setattr(again.segmenter, "masks", leaves_out)
    again.run()
    again.export(tmp_path / "out")
    assert set(calls) == {0, 1, 2, 3}
    said = json.loads((tmp_path / "out/metrics.json").read_text())["train"]
    assert said["boxes_left_out"] == 3 * len(calls)
    assert "boxes_left_out" not in json.loads((project / "data/train/metrics.json").read_text())["train"]


def test_a_run_without_any_gradient_is_no_good_run(project: Path, tmp_path: Path, monkeypatch) -> None:
    again = trainer(project, tmp_path / "work")
    values = again.iterate(0)
    monkeypatch.setattr(again, "_update", lambda _, values: values | {"grad_norm": 0.0, "skipped": 0})
    monkeypatch.setattr(again, "_backward", lambda iteration: dict(values))
    with pytest.raises(UserError, match=r"none of \d+ iterations gave the LoRA weights a gradient"):
        again.run()


def test_no_iteration_leaves_the_base_as_it_is(project: Path, tmp_path: Path, monkeypatch) -> None:
    own = params_of(project)
    monkeypatch.setattr("tests.test_stages.params_of", lambda _: own.model_copy(update={"train_steps": 0}))
    none = trainer(project, tmp_path / "work")
    none.run()
    none.export(tmp_path / "out")
    lora = read_safetensors(tmp_path / "out/lora/pytorch_lora_weights.safetensors")
    assert lora and not any(weight.any() for name, weight in lora.items() if "lora_B" in name)


def test_killed_training_ends_with_the_same_bytes(project: Path, tmp_path: Path) -> None:
    """SIGKILL once the first checkpoint is there; the rerun resumes from it."""
    for name in ("data", "lists"):
        shutil.copytree(project / name, tmp_path / name)
    shutil.copy(project / "params.yaml", tmp_path)
    shutil.rmtree(tmp_path / "data/train")
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "stages.train"]
    process = subprocess.Popen(command, cwd=tmp_path, env=environment, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while not list((tmp_path / ".work").rglob("state.safetensors")) and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (tmp_path / "data/train/lora").exists()  # curves and pictures are there while they grow
    assert list((tmp_path / ".work").rglob("state.safetensors"))
    subprocess.run(command, cwd=tmp_path, env=environment, check=True, capture_output=True)
    for file in TRAINED:
        assert (tmp_path / "data/train" / file).read_bytes() == (project / "data/train" / file).read_bytes(), file


@pytest.mark.parametrize(("moment", "number"), [("gradients", signal.SIGINT), ("update", signal.SIGTERM)])
def test_interrupted_training_saves_its_state_and_ends_with_the_same_bytes(
    project: Path, tmp_path: Path, capsys: pytest.CaptureFixture, moment: str, number: signal.Signals
) -> None:
    """In the third iteration: while gradients flow, or when one of the two optimizers has stepped."""
    first = trainer(project, tmp_path / "work")
    rare = first.p.train.model_copy(update={"checkpoint_every": 100})  # no checkpoint helps
    first.p = first.p.model_copy(update={"train": rare})

    def interrupt(*_: object) -> None:
        if len(first.rows) == 2:
            os.kill(os.getpid(), number)

    @main_guard
    def command() -> None:
        first.run()

    place = first.lora[0].register_hook if moment == "gradients" else first.optimizer.register_step_post_hook
    hook = place(interrupt)
    with pytest.raises(SystemExit) as stop:
        command()
    hook.remove()
    done = 2 if moment == "gradients" else 3
    assert stop.value.code == 128 + number
    assert f"error: interrupted at iteration {done} of 4; `dvc repro` goes on\n" in capsys.readouterr().err
    again = trainer(project, tmp_path / "work")
    assert len(again.rows) == done
    again.run()
    again.export(tmp_path / "out")
    for file in TRAINED:
        assert (tmp_path / "out" / file).read_bytes() == (project / "data/train" / file).read_bytes(), file


def test_steps_that_are_not_finite_change_nothing_and_stop_the_run(project: Path, tmp_path: Path) -> None:
    broken = trainer(project, tmp_path / "work")
    before = [w.clone() for w in broken.lora]
    broken.p = broken.p.model_copy(update={"train": broken.p.train.model_copy(update={"max_skipped": 2})})
    broken.data.reference = {id: {"latents": torch.full((4, 8, 8), torch.nan)} for id, _ in broken.data.prompts}
    why = r"stopped at iteration 1: the last 2 steps were skipped, not finite was discriminator \(Eq. 3\) in 2 of them"
    with pytest.raises(ValueError, match=why):
        broken.run()
    assert all(torch.equal(a, b) for a, b in zip(before, broken.lora, strict=True))
    assert [row["skipped"] for row in broken.rows] == [1, 1]
