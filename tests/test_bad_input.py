"""Bad input to a stage: one clear error, and finished work stays."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from comat.storage.tables import PROMPTS, read_table, write_table
from tests.conftest import run


def error_of(stage: str, folder: Path, capsys: pytest.CaptureFixture) -> str:
    with pytest.raises(SystemExit) as stop:
        run(stage, folder)
    assert stop.value.code == 1
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1
    return lines[0]


def test_a_missing_image_is_named(broken: Path, capsys: pytest.CaptureFixture) -> None:
    victim = next((broken / "data/samples/images").iterdir())
    victim.unlink()
    assert victim.name in error_of("evaluate", broken, capsys)


@pytest.mark.parametrize("text", ["{", "{}", '[{"prompt_id": 1}]'])
def test_a_malformed_legend_of_attention_is_named(broken: Path, capsys: pytest.CaptureFixture, text: str) -> None:
    (broken / "data/base_samples/attention.json").write_text(text)
    assert "attention.json: not a legend of maps" in error_of("evaluate", broken, capsys)


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
    assert "base_model 'model': its part unet has no weights" in error_of("models", broken, capsys)


def test_another_model_than_the_recorded_one_stops_a_stage(broken: Path, capsys: pytest.CaptureFixture) -> None:
    values = YAML(typ="safe").load((broken / "params.yaml").read_text())
    YAML().dump({**values, "base_model": values["captioner_model"]}, broken / "params.yaml")
    assert "models.lock.json: base_model is " in error_of("warmup", broken, capsys)


def test_unreadable_images_are_counted_and_an_empty_folder_is_an_error(
    broken: Path, capsys: pytest.CaptureFixture
) -> None:
    files = sorted((broken / "coco/train2017").iterdir())
    files[0].write_bytes(b"no image")
    files[1].unlink()
    run("image_latents", broken)
    report = json.loads((broken / "data/image_latents/report.json").read_text())
    assert report["stored"] == 3
    assert report["skipped"] == {"missing": 1, "unreadable": 1}
    for file in files[2:]:
        file.unlink()
    assert "5 of 5 images with a caption are left out (4 missing, 1 unreadable)" in error_of(
        "image_latents", broken, capsys
    )


def test_an_unknown_parameter_stops_a_stage_before_models_load(broken: Path, capsys: pytest.CaptureFixture) -> None:
    with (broken / "params.yaml").open("a") as file:
        file.write("lambda: 1\n")
    assert "lambda (= 1) is no parameter" in error_of("train", broken, capsys)


def test_samples_need_held_out_prompts(broken: Path, capsys: pytest.CaptureFixture) -> None:
    rows = read_table(broken / "data/prompts/prompts.parquet", PROMPTS)
    write_table(broken / "data/prompts/prompts.parquet", [r for r in rows if r["split"] == "train"], PROMPTS)
    assert "no prompt of split 'test'" in error_of("base_samples", broken, capsys)
