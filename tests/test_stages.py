"""All stages in a row on tiny models, through their own scripts; and what must hold of their outputs."""

from __future__ import annotations

import importlib
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

from comat.images import to_bytes
from comat.params import Params
from comat.randomness import generator, noise
from comat.shapes.corpora import write_coco
from comat.shapes.recipe import features
from comat.shapes.recipe.__main__ import save
from comat.store import IMAGE_INDEX, PROMPTS, TensorStore, read_safetensors, read_table
from comat.training.data import TrainingData
from comat.training.trainer import Trainer, load_backbone
from tests.conftest import ROOT

STAGES = [
    "prompts",
    "entities",
    "warmup_images",
    "warmup",
    "reference_latents",
    "image_latents",
    "train",
    "samples",
    "evaluate",
]


def run(stage: str, folder: Path) -> None:
    """Run a stage script in this process, in `folder`."""
    before, argv = Path.cwd(), sys.argv
    os.chdir(folder)
    sys.argv = [stage]
    try:
        importlib.import_module(f"stages.{stage}").main()
    finally:
        os.chdir(before)
        sys.argv = argv


@pytest.fixture(scope="session")
def project(tmp_path_factory: pytest.TempPathFactory, make_params, tiny: Path) -> Path:
    """A project folder in which every stage has run."""
    root = tmp_path_factory.mktemp("project")
    (root / "lists").mkdir()
    lines = ["a red ball and a blue cube", "two green stars", "a pink ring above a black cross", "a yellow cone"]
    (root / "lists" / "color_train.txt").write_text("\n".join(lines))
    (root / "lists" / "color_val.txt").write_text("a blue ball and a red cube\na purple star and a green ring\n")
    write_coco(root / "coco", count=5, size=24)
    save(features.build(), tiny / "features", processor="ConvNextImageProcessor")
    values = make_params(train_steps=4).model_dump()
    values["prompts"] |= {
        "sources": [{"name": "t2i", "format": "t2i_compbench", "path": "lists"}],
        "decontaminate": False,
    }
    values["warmup_images"] |= {"count": 4, "batch_size": 3}
    values["warmup"] |= {"steps": 2, "batch_size": 2}
    values["reference_latents"] |= {"batch_size": 3, "shard_size": 3}
    values["image_latents"] |= {
        "images": "coco/train2017",
        "captions": "coco/annotations/captions_train2017.json",
        "batch_size": 2,
    }
    values["train"] |= {"checkpoint_every": 1}
    values["samples"] |= {"batch_size": 3, "attention_prompts": 1}
    values["evaluate"] |= {"feature_model": str(tiny / "features"), "bootstrap": 50, "grid_pairs": 4}
    YAML().dump(values, root / "params.yaml")
    for stage in STAGES:
        run(stage, root)
    return root


def params_of(project: Path) -> Params:
    from comat.params import load

    return load(project / "params.yaml")


def test_every_stage_leaves_its_outputs_and_no_work(project: Path) -> None:
    for out in (
        "prompts/prompts.parquet",
        "entities/entities.parquet",
        "warmup/unet/config.json",
        "reference_latents/index.parquet",
        "image_latents/index.parquet",
        "train/lora/pytorch_lora_weights.safetensors",
        "train/curves.csv",
        "samples/index.parquet",
        "evaluate/metrics.json",
        "evaluate/pictures/grid.png",
        "evaluate/pictures/attention-0.png",
    ):
        assert (project / "data" / out).is_file(), out
    assert not [p for p in (project / ".work").rglob("*") if p.is_file() and p.suffix != ".lock"]


def test_metrics_have_the_promised_keys(project: Path) -> None:
    metrics = json.loads((project / "data/evaluate/metrics.json").read_text())
    for name in ("color", "total"):
        assert set(metrics["oracle"][name]) >= {"base", "tuned", "gain", "gain_low", "gain_high", "n"}
    assert metrics["oracle"]["total"]["n"] == 4
    assert set(metrics["frechet"]) == {"base", "tuned", "ratio"}


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
    row = [r for r in read_table(project / "data/samples/index.parquet", IMAGE_INDEX) if r["model"] == "tuned"][1]
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

    from comat.evaluation.sampling import draw_samples

    state = read_safetensors(project / "data/train/lora/pytorch_lora_weights.safetensors")
    (tmp_path / "lora").mkdir()
    file = tmp_path / "lora" / "pytorch_lora_weights.safetensors"
    save_file({name: torch.zeros_like(value) for name, value in state.items()}, file)
    data = project / "data"
    draw_samples(
        params_of(project), data / "prompts", data / "entities", data / "warmup/unet", file.parent, tmp_path / "out"
    )
    for row in read_table(tmp_path / "out/index.parquet", IMAGE_INDEX):
        if row["model"] == "base":
            twin = tmp_path / "out" / row["path"].replace("/base/", "/tuned/")
            assert (tmp_path / "out" / row["path"]).read_bytes() == twin.read_bytes()


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


def test_generate_draws_base_above_tuned(project: Path, tmp_path: Path, tiny: Path) -> None:
    from comat.generate import generate

    params, data = params_of(project), project / "data"
    generate(params, "a zebra", 3, data / "warmup/unet", data / "train/lora", tmp_path / "x.png")
    assert Image.open(tmp_path / "x.png").size == (3 * params.resolution, 2 * params.resolution)


def trainer(project: Path, work: Path) -> Trainer:
    params, data = params_of(project), project / "data"
    folders = [data / name for name in ("prompts", "entities", "reference_latents", "image_latents")]
    work.mkdir(exist_ok=True)
    return Trainer(params, load_backbone(params, data / "warmup/unet"), TrainingData(params, *folders), work)


def test_training_twice_gives_the_same_bytes(project: Path, tmp_path: Path) -> None:
    again = trainer(project, tmp_path / "work")
    again.run()
    again.export(tmp_path / "out")
    for file in ("lora/pytorch_lora_weights.safetensors", "discriminator/discriminator.safetensors", "curves.csv"):
        assert (tmp_path / "out" / file).read_bytes() == (project / "data/train" / file).read_bytes(), file


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
    assert not (tmp_path / "data/train").exists()
    assert list((tmp_path / ".work").rglob("state.safetensors"))
    subprocess.run(command, cwd=tmp_path, env=environment, check=True, capture_output=True)
    for file in ("lora/pytorch_lora_weights.safetensors", "discriminator/discriminator.safetensors", "curves.csv"):
        assert (tmp_path / "data/train" / file).read_bytes() == (project / "data/train" / file).read_bytes(), file


def test_steps_that_are_not_finite_change_nothing_and_stop_the_run(project: Path, tmp_path: Path) -> None:
    broken = trainer(project, tmp_path / "work")
    before = [w.clone() for w in broken.lora]
    broken.p = broken.p.model_copy(update={"train": broken.p.train.model_copy(update={"max_skipped": 2})})
    broken.data.reference = {id: {"latents": torch.full((4, 8, 8), torch.nan)} for id, _ in broken.data.prompts}
    with pytest.raises(ValueError, match="training stopped at iteration 1: the last 2 steps"):
        broken.run()
    assert all(torch.equal(a, b) for a, b in zip(before, broken.lora, strict=True))
    assert [row["skipped"] for row in broken.rows] == [1, 1]


def error_of(stage: str, folder: Path, capsys: pytest.CaptureFixture) -> str:
    with pytest.raises(SystemExit) as stop:
        run(stage, folder)
    assert stop.value.code == 1
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1
    return lines[0]


@pytest.fixture
def broken(project: Path, tmp_path: Path) -> Path:
    """A copy of the project to break."""
    for name in ("data", "lists", "coco"):
        shutil.copytree(project / name, tmp_path / name)
    shutil.copy(project / "params.yaml", tmp_path)
    return tmp_path


def test_a_missing_image_is_named(broken: Path, capsys: pytest.CaptureFixture) -> None:
    victim = next((broken / "data/samples/images/tuned").iterdir())
    victim.unlink()
    assert victim.name in error_of("evaluate", broken, capsys)


def test_a_truncated_shard_stops_training_before_it_starts(broken: Path, capsys: pytest.CaptureFixture) -> None:
    shard = broken / "data/reference_latents/00000.safetensors"
    shard.write_bytes(shard.read_bytes()[:-8])
    weights = (broken / "data/train/lora/pytorch_lora_weights.safetensors").read_bytes()
    assert "truncated" in error_of("train", broken, capsys)
    assert (broken / "data/train/lora/pytorch_lora_weights.safetensors").read_bytes() == weights


def test_a_model_folder_without_weights_is_named(broken: Path, capsys: pytest.CaptureFixture) -> None:
    values = YAML(typ="safe").load((broken / "params.yaml").read_text())
    shutil.copytree(values["base_model"], broken / "model")
    (broken / "model/unet/diffusion_pytorch_model.safetensors").unlink()
    YAML().dump({**values, "base_model": "model"}, broken / "params.yaml")
    assert "cannot load unet" in error_of("warmup", broken, capsys)


def test_unreadable_images_are_counted_and_an_empty_folder_is_an_error(
    broken: Path, capsys: pytest.CaptureFixture
) -> None:
    files = sorted((broken / "coco/train2017").iterdir())
    files[0].write_bytes(b"no image")
    files[1].unlink()
    run("image_latents", broken)
    report = json.loads((broken / "data/image_latents/report.json").read_text())
    assert report == {"listed": 5, "skipped": {"unreadable": 1, "missing": 1}}
    for file in files[2:]:
        file.unlink()
    assert "none of the 5 images" in error_of("image_latents", broken, capsys)


def test_an_unknown_parameter_stops_a_stage_before_models_load(broken: Path, capsys: pytest.CaptureFixture) -> None:
    with (broken / "params.yaml").open("a") as file:
        file.write("lambda: 1\n")
    assert "lambda (= 1) is no parameter" in error_of("train", broken, capsys)


def test_samples_need_held_out_prompts(broken: Path, capsys: pytest.CaptureFixture) -> None:
    from comat.store import write_table

    rows = read_table(broken / "data/prompts/prompts.parquet", PROMPTS)
    write_table(broken / "data/prompts/prompts.parquet", [r for r in rows if r["split"] == "train"], PROMPTS)
    assert "no prompt of split 'test'" in error_of("samples", broken, capsys)
