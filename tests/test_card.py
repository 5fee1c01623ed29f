"""The model card: what the hub reads of it, and that its code runs."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import diffusers
import numpy as np
import pytest
import torch
from huggingface_hub import ModelCard

from comat.diffusion.backbones import load_base
from comat.diffusion.lora import add_lora, export_lora, merged
from comat.diffusion.rollout import rollout
from comat.diffusion.schedulers import make_sampler
from comat.models.names import named_models
from comat.params import load
from comat.randomness import generator, noise
from comat.reporting.card import card_data, table, write_card
from comat.storage.images import to_bytes
from tests import tiny_families
from tests.conftest import ROOT
from tests.test_backbones import GUIDED, shaken


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


@pytest.mark.parametrize("name", tiny_families.NAMES)
def test_the_code_on_the_card_draws_what_is_drawn_here(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The tuned picture from the same noise, by the size, the guidance and the parts of each family's pipeline."""
    monkeypatch.chdir(tmp_path)
    folder = getattr(tiny_families, f"save_{name}")(tmp_path / name)
    own = {"base_model": str(folder), "vae": None, "scheduler": "model", "sampling_steps": 4, "resolution": 32}
    params = load(ROOT / "presets/shapes-flow.yaml")
    warmup = params.warmup.model_copy(update={"steps": 0})
    guidance = GUIDED.get(name, (4.0,))[-1]
    params = params.model_copy(update={**own, "guidance_scale": guidance, "warmup": warmup})
    backbone = load_base(params.base_model)
    shaken(add_lora(backbone, 2, generator(0, "lora")))
    export_lora(backbone, Path("data/train/lora"))
    write_card(params, params.model_dump(), named_models(params), {}, tmp_path)
    code = re.search(r"```python\n(.*?)```", (tmp_path / "model_card/README.md").read_text(), re.DOTALL)
    found: dict = {}
    exec(code[1], found)
    noises = [torch.Generator().manual_seed(0)]  # the card's
    sampler = backbone.sampler("model", 4, backbone.latent_shape(32)[1:])
    with torch.no_grad(), merged(backbone.denoiser):
        z = sampler.first(noise(backbone.latent_shape(32), noises))
        prompts = backbone.encode_prompts(["a red cube and a blue star"])
        image = backbone.decode(rollout(backbone, sampler, z, prompts, guidance, noises, chunk=1).z0)
    difference = to_bytes(image[0]).astype(int) - np.asarray(found["image"])
    assert abs(difference).max() <= 1


@pytest.mark.parametrize("name", ["ddim", "ddpm", "euler"])
def test_the_card_s_sampler_is_the_run_s(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a base whose own scheduler says more than a schedule: Karras' sigmas, a last alpha of 1."""
    monkeypatch.chdir(tmp_path)
    params = load(ROOT / "presets/shapes.yaml").model_copy(update={"scheduler": name, "sampling_steps": 8})
    shutil.copytree(ROOT / params.base_model, tmp_path / "base")
    path = tmp_path / "base/scheduler/scheduler_config.json"
    own = {"_class_name": "DPMSolverMultistepScheduler", "use_karras_sigmas": True, "set_alpha_to_one": True}
    path.write_text(json.dumps(json.loads(path.read_text()) | own))
    params = params.model_copy(update={"base_model": "base", "vae": None})
    write_card(params, params.model_dump(), named_models(params), {}, tmp_path)
    (code,) = re.findall(
        r"pipeline\.scheduler = (\w+\(.*?\n\))", (tmp_path / "model_card/README.md").read_text(), re.DOTALL
    )
    scheduler = eval(code, vars(diffusers).copy())
    scheduler.set_timesteps(8)
    expected = make_sampler(name, json.loads(path.read_text()), 8).scheduler
    assert scheduler.timesteps.tolist() == expected.timesteps.tolist()
    assert scheduler.config == expected.config


def test_a_category_is_one_cell_of_the_card() -> None:
    row = {"base": 0.5, "tuned": 0.5, "gain": 0.0, "gain_low": 0.0, "gain_high": 0.0, "n": 3}
    assert table("oracle", {"a | <b>\n": row}).splitlines()[2].startswith("| a \\| \\<b\\>\\\\n | 50.0% |")


@pytest.mark.parametrize(
    ("schedule", "said"),
    [
        ("constant", "learning rate 0.0008, seed 0."),
        ("linear", "learning rate 0.0008, falling linearly to zero, seed 0."),
        ("cosine", "learning rate 0.0008, falling to zero by a cosine, seed 0."),
    ],
)
def test_the_card_says_how_the_learning_rate_went(make_params, tmp_path: Path, schedule: str, said: str) -> None:
    params = make_params(learning_rate_schedule=schedule)
    write_card(params, params.model_dump(), named_models(params), {}, tmp_path)
    assert said in (tmp_path / "model_card/README.md").read_text()


@pytest.mark.parametrize(
    ("preset", "base", "licence"), [("sd15", "1-5", "creativeml-openrail-m"), ("sdxl", "xl", "openrail++")]
)
def test_the_card_of_a_preset_names_its_base_model_and_licence(preset: str, base: str, licence: str) -> None:
    data = card_data(load(ROOT / f"presets/{preset}.yaml").base_model, {}, "name")
    assert base in data.base_model and data.license == licence
