"""Each preset on small twins of its models: all stages, with every captioner and discriminator."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from comat.params import load
from comat.store import read_safetensors
from tests.conftest import ROOT, STAGES, run, small, write_inputs

SIZES = {
    "resolution": 16,
    "native_resolution": 32,
    "sampling_steps": 6,
    "lora_rank": 2,
    "global_batch": 3,
    "image_batch": 2,
    "train_steps": 3,
    "learning_rate": 1e-3,
}
RUNS = [
    # preset, captioner, discriminator and its model, what is real, precision, rank of the warm-up's LoRA
    ("sd15", "blip", "unet", "sd15", "generated", "fp32", 0),
    ("sd15", "git", "dino", "dino", "generated", "bf16", 2),
    ("sd15", "llava", "unet", "sd15", "real_world", "fp16", 0),
    ("sdxl", "blip", "unet", "sd15", "generated", "bf16", 0),
    ("sdxl", "git", "unet", "sdxl", "real_world", "fp16", 2),
    ("sdxl", "llava", "dino", "dinov2", "generated", "fp32", 0),
]


@pytest.mark.slow
@pytest.mark.parametrize(("preset", "captioner", "critic", "critic_model", "real", "precision", "rank"), RUNS)
def test_all_stages_run(
    tmp_path: Path, tiny: Path, preset: str, captioner: str, critic: str, critic_model: str, real: str, precision, rank
) -> None:
    write_inputs(tmp_path, tiny)
    values = small(load(ROOT / "presets" / f"{preset}.yaml").model_dump(), tiny) | SIZES
    values |= {"base_model": str(tiny / preset), "base_revision": None, "precision": precision}
    if values["vae"]:
        values |= {"vae": str(tiny / preset / "vae"), "vae_revision": None}
    values |= {"captioner": captioner, "captioner_model": str(tiny / captioner), "captioner_revision": None}
    values |= {"segmenter": "clipseg", "segmenter_model": str(tiny / "clipseg"), "segmenter_revision": None}
    values["grounded_sam"] = None
    values |= {"discriminator": critic, "discriminator_model": str(tiny / critic_model), "discriminator_input": real}
    values |= {"discriminator_revision": None}
    values["warmup"] |= {"lora_rank": rank}
    YAML().dump(values, tmp_path / "params.yaml")
    for stage in STAGES:
        run(stage, tmp_path)
    lora = read_safetensors(tmp_path / "data/train/lora/pytorch_lora_weights.safetensors")
    assert max(value.abs().max() for name, value in lora.items() if "lora_B" in name or ".up." in name) > 0
    metrics = json.loads((tmp_path / "data/train/metrics.json").read_text())["train"]
    assert metrics["iterations"] == 3 and metrics["skipped"] == 0
    assert metrics["i2t"] > 0 and metrics["discriminator"] > 0 and metrics["attribute"] != 0
    evaluated = json.loads((tmp_path / "data/evaluate/metrics.json").read_text())
    assert evaluated["oracle"]["total"]["n"] == evaluated["clip_score"]["total"]["n"] == 4
