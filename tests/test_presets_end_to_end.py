"""Each preset on small twins of its models: all stages, with every captioner, segmenter and discriminator."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from comat.finished.generate import attention
from comat.params import SHOWS, load
from comat.storage.tables import read_safetensors
from tests import tiny_families, tiny_segmenters
from tests.conftest import ROOT, STAGES, run, small, write_inputs
from tests.tiny_models import one_captioner

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
SLOW = [
    # preset, captioner, segmenter, discriminator and its model, what is real, precision, rank of the warm-up's LoRA
    ("sd15", "blip", "grounded_sam_hf", "denoiser", "sd15", "generated", "fp32", 0),
    ("sd15", "git", "clipseg", "dino", "dino", "generated", "bf16", 2),
    ("sdxl", "blip", "clipseg", "denoiser", "sd15", "generated", "bf16", 0),
    ("sdxl", "git", "clipseg", "denoiser", "sdxl", "real_world", "fp16", 2),
    ("sdxl", "vqa", "sam3", "denoiser", "sd15", "generated", "fp32", 0),
    ("sdxl", "mixture", "clipseg", "denoiser", "sd15", "generated", "bf16", 0),
    ("sdxl", "llava", "grounded_sam", "dino", "dinov2", "generated", "fp32", 0),
]
RUNS = [
    ("sd15", "llava", "clipseg", "denoiser", "sd15", "real_world", "fp16", 0),
    *(pytest.param(*row, marks=pytest.mark.slow) for row in SLOW),
]


@pytest.fixture(scope="module")
def segmenters(tmp_path_factory: pytest.TempPathFactory, tiny: Path) -> dict[str, dict]:
    """Parameters of each segmenter on a small model."""
    root = tmp_path_factory.mktemp("segmenters")
    tiny_segmenters.save_grounding_dino(root / "dino")
    tiny_segmenters.save_sam(root / "sam")
    tiny_segmenters.save_grounding_dino_hf(root / "dino_hf")
    tiny_segmenters.save_sam_hf(root / "sam_hf")
    tiny_segmenters.save_sam3(root / "sam3")
    sam3 = {"segmenter": "sam3", "segmenter_model": str(root / "sam3"), "segmenter_revision": None}
    sam3 |= {"grounded_sam": None, "sam3": {"threshold": 0.1, "nms_threshold": 0.8}}
    clipseg = {"segmenter": "clipseg", "segmenter_model": str(tiny / "clipseg"), "segmenter_revision": None}
    grounded = {k: tiny_segmenters.grounded_sam_params(root, k) for k in ("grounded_sam", "grounded_sam_hf")}
    return {"clipseg": {**clipseg, "grounded_sam": None}, "sam3": sam3, **grounded}


@pytest.mark.parametrize(
    ("preset", "captioner", "segmenter", "critic", "critic_model", "real", "precision", "rank"), RUNS
)
def test_all_stages_run(
    tmp_path: Path,
    tiny: Path,
    segmenters: dict[str, dict],
    preset: str,
    captioner: str,
    segmenter: str,
    critic: str,
    critic_model: str,
    real: str,
    precision: str,
    rank: int,
) -> None:
    write_inputs(tmp_path, tiny)
    values = twin(preset, tiny) | segmenters[segmenter] | {"precision": precision}
    values |= captioners(captioner, tiny)
    values["evaluate"] |= {"captioner": True}
    if captioner == "mixture":
        values["evaluate"]["clip_score"] |= {"same_as_teacher": True}  # its CLIP is one of the teachers here
    if captioner == "blip":
        values["evaluate"] |= {"vqa_score": {"vqa_model": str(tiny / "llava"), "vqa_revision": None}}
    values |= {"discriminator": critic, "discriminator_model": str(tiny / critic_model), "discriminator_input": real}
    values["warmup"] |= {"lora_rank": rank}
    YAML().dump(values, tmp_path / "params.yaml")
    for stage in STAGES:
        run(stage, tmp_path)
    check(tmp_path)


LATER = {"sd35-medium": "sd3", "pixart-sigma": "pixart_sigma", "flux-dev": "flux_dev"}
"""Presets that are not the paper's → the random twins of their base models."""
FAMILIES = [("sd3", "fp32")] + [
    pytest.param(name, precision, marks=pytest.mark.slow)
    for name, precision in (
        ("sd15", "bf16"),
        ("sd2", "fp32"),
        ("sdxl", "fp16"),
        ("playground_v2", "fp32"),
        ("sd3_without_t5", "fp16"),
        ("pixart_alpha", "fp32"),
        ("pixart_sigma", "bf16"),
        ("flux_dev", "bf16"),
        ("flux_schnell", "fp32"),
        ("sana", "bf16"),
        ("qwen_image", "bf16"),
        ("z_image", "fp32"),
    )
]


@pytest.mark.parametrize(("family", "precision"), FAMILIES)
def test_all_stages_run_on_each_family(tmp_path: Path, tiny: Path, family: str, precision: str) -> None:
    """From the prompts to the report, and the picture of where each word looks."""
    write_inputs(tmp_path, tiny)
    model = getattr(tiny_families, f"save_{family}")(tmp_path / "model")
    values = twin("sdxl", tiny) | {"precision": precision, "vae": None, "vae_revision": None}
    values |= {"segmenter": "clipseg", "segmenter_model": str(tiny / "clipseg"), "grounded_sam": None}
    values |= {"base_model": str(model), "discriminator_model": str(model), "scheduler": "model"}
    values |= {"guidance_scale": 1.0 if family == "flux_schnell" else 4.0}
    values |= captioners("llava", tiny) if precision == "fp16" else {}  # in which the small BLIP's gradient is zero
    values["train"] |= {"gradient_checkpointing": "all"}
    YAML().dump(values, tmp_path / "params.yaml")
    for stage in STAGES:
        run(stage, tmp_path)
    check(tmp_path)
    attention(load(tmp_path / "params.yaml"), tmp_path / "data", "a red ball", 0, tmp_path / "maps.png")
    assert (tmp_path / "maps.png").stat().st_size > 1000


@pytest.mark.slow
@pytest.mark.parametrize("preset", ["sd15", "sdxl", *LATER])
def test_dvc_repro_runs_the_pipeline_in_a_clone(
    tmp_path: Path, tiny: Path, segmenters: dict[str, dict], preset: str
) -> None:
    """What is committed runs, stage by stage, each a process of its own; afterwards nothing is left to do."""
    clone = tmp_path / "clone"
    subprocess.run(["git", "clone", "--quiet", str(ROOT), str(clone)], check=True)
    write_inputs(clone, tiny)
    YAML().dump(twin(preset, tiny) | segmenters["clipseg"], clone / "params.yaml")
    own = Path(sys.executable).parent
    env = os.environ | {"PATH": f"{own}{os.pathsep}{os.environ['PATH']}", "OMP_NUM_THREADS": "1"}
    done = subprocess.run([own / "dvc", "repro"], cwd=clone, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    check(clone)
    left = subprocess.run([own / "dvc", "status", "dvc.yaml"], cwd=clone, env=env, capture_output=True, text=True)
    assert "up to date" in left.stdout


def captioners(kind: str, tiny: Path) -> dict:
    """Parameters of a captioner; llava is a vlm, vqa one that is asked about the prompt, a mixture three together."""
    asked = {"captioner_question": SHOWS, "captioner_answer": "Yes", "caption_prefix": ""} if kind == "vqa" else {}
    if kind in ("llava", "vqa"):
        return {"captioner": "vlm", "captioner_model": str(tiny / "llava"), "captioner_revision": None, **asked}
    if kind != "mixture":
        return {"captioner": kind, "captioner_model": str(tiny / kind), "captioner_revision": None}
    own = [one_captioner("blip", tiny / "blip").model_dump(), {**captioners("vqa", tiny), "weight": 0.5}]
    own.append(one_captioner("clip_similarity", tiny / "clip").model_dump())
    return {"captioner": own, "captioner_model": None, "captioner_revision": None, "caption_prefix": ""}


def twin(preset: str, tiny: Path) -> dict:
    """The preset's parameters on small models of the same classes."""
    values = small(load(ROOT / "presets" / f"{preset}.yaml").model_dump(), tiny) | SIZES
    values |= {"base_model": str(tiny / preset), "base_revision": None, "precision": "fp32"}
    if values["vae"]:
        values |= {"vae": str(tiny / preset / "vae"), "vae_revision": None}
    values |= {"captioner_model": str(tiny / "blip"), "captioner_revision": None}
    critic = tiny / ("sd15" if values["discriminator"] == "denoiser" else "dinov2")
    values |= {"discriminator_model": str(critic), "discriminator_revision": None}
    if preset in LATER:
        model = getattr(tiny_families, f"save_{LATER[preset]}")(tiny / LATER[preset])
        values |= {"base_model": str(model)}
        values |= {"discriminator_model": str(model)} if preset == "sd35-medium" else {}
    return values


def check(root: Path) -> None:
    """Every part of the loss was there, the LoRA learned, and the samples were judged."""
    lora = read_safetensors(root / "data/train/lora/pytorch_lora_weights.safetensors")
    assert max(value.abs().max() for name, value in lora.items() if "lora_B" in name or ".up." in name) > 0
    metrics = json.loads((root / "data/train/metrics.json").read_text())["train"]
    assert metrics["iterations"] == 3 and metrics["skipped"] == 0
    assert metrics["i2t"] > 0 and metrics["discriminator"] > 0 and metrics["attribute"] != 0
    evaluated = json.loads((root / "data/evaluate/metrics.json").read_text())
    assert evaluated["oracle"]["total"]["n"] == evaluated["clip_score"]["total"]["n"] == 4
