"""The model card: what the hub reads of it, and that its code runs."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import torch
from huggingface_hub import ModelCard

from comat.diffusion.backbones import load_base
from comat.diffusion.lora import add_lora, export_lora
from comat.models.names import named_models
from comat.params import load
from comat.randomness import generator
from comat.reporting.card import card_data, table, write_card
from tests.conftest import ROOT


def test_the_card_is_one_that_the_hub_reads(evaluated: Path) -> None:
    card = ModelCard.load(evaluated / "model_card/README.md")
    metrics = json.loads((evaluated / "metrics.json").read_text())
    found = {result.dataset_type: result.metric_value for result in card.data.eval_results}
    assert found["oracle-total"] == pytest.approx(metrics["oracle"]["total"]["tuned"], abs=1e-4)
    assert (card.data.library_name, card.data.pipeline_tag) == ("diffusers", "text-to-image")
    assert card.data.base_model is None, "a folder is no model of the hub"
    assert "## Limitations" in card.text and "|---|---|---|\n| `base_model` |" in card.text
    assert "\n\n\n" not in card.text


def test_the_code_on_the_card_draws_the_image(evaluated: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(evaluated.parent.parent)
    code = re.search(r"```python\n(.*?)```", (evaluated / "model_card/README.md").read_text(), re.DOTALL)
    found: dict = {}
    exec(code[1], found)
    assert found["image"].size == (16, 16)
    assert any("lora" in name for name, _ in found["pipeline"].unet.named_parameters())


@pytest.mark.parametrize(("preset", "denoiser"), [("shapes", "unet"), ("shapes-flow", "transformer")])
def test_the_code_on_the_card_runs_on_the_shipped_models(
    preset: str, denoiser: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whose text encoders and UNet are files of half precision, beside the float32 one that the warm-up writes."""
    params = load(ROOT / f"presets/{preset}.yaml")
    (tmp_path / "data").mkdir()
    (tmp_path / "data/shapes").symlink_to(ROOT / "data/shapes")
    monkeypatch.chdir(tmp_path)
    backbone = load_base(params.base_model)
    backbone.denoiser.save_pretrained(f"data/warmup/{denoiser}")
    add_lora(backbone, 2, generator(0, "lora"))
    export_lora(backbone, Path("data/train/lora"))
    write_card(params, params.model_dump(), named_models(params), {}, tmp_path)
    code = re.search(r"```python\n(.*?)```", (tmp_path / "model_card/README.md").read_text(), re.DOTALL)
    found: dict = {}
    exec(code[1], found)
    pipeline, scheduler = found["pipeline"], found["pipeline"].scheduler
    assert ("max_sequence_length=24" in code[1]) == (preset == "shapes-flow"), "the small T5 reads no more"
    assert found["image"].size == (params.resolution,) * 2
    parts = [part for part in pipeline.components.values() if isinstance(part, torch.nn.Module)]
    assert {weight.dtype for part in parts for weight in part.parameters()} == {torch.float32}
    own = backbone.sampler(params.scheduler, params.sampling_steps, backbone.latent_shape(params.resolution)[1:])
    scheduler.set_timesteps(params.sampling_steps)
    assert scheduler.timesteps.tolist() == own.timesteps.tolist(), "as it was evaluated"


def test_a_category_is_one_cell_of_the_card() -> None:
    row = {"base": 0.5, "tuned": 0.5, "gain": 0.0, "gain_low": 0.0, "gain_high": 0.0, "n": 3}
    assert table("oracle", {"a | <b>\n": row}).splitlines()[2].startswith("| a \\| \\<b\\>\\\\n | 50.0% |")


@pytest.mark.parametrize(
    ("preset", "base", "licence"), [("sd15", "1-5", "creativeml-openrail-m"), ("sdxl", "xl", "openrail++")]
)
def test_the_card_of_a_preset_names_its_base_model_and_licence(preset: str, base: str, licence: str) -> None:
    data = card_data(load(ROOT / f"presets/{preset}.yaml").base_model, {}, "name")
    assert base in data.base_model and data.license == licence
