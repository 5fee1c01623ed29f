"""`comat generate`, `compare` and `attention`: any prompt with the models of a finished run."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from comat.cli import app
from comat.diffusion.load import load_backbone
from comat.diffusion.lora import in_turn
from comat.diffusion.sampling import attention_of, sample_latents
from comat.errors import UserError
from comat.finished.generate import Asked, attention, compare, file_name, generate, strange_words
from comat.params import Params, load
from comat.reporting.grid import GAP, LABEL, TEXT, comparison_grid
from comat.running.workdir import sum_of
from comat.storage.images import read_rgb
from comat.tokenizers import load_tokenizers
from tests.conftest import ROOT

PROMPTS = ["a zebra", "a red ball and a blue cube"]


@pytest.fixture
def params(project: Path) -> Params:
    return load(project / "params.yaml")


def cell(sheet: np.ndarray, size: int, count: int, prompt: int, model: int, number: int) -> np.ndarray:
    """A picture of a comparison, by the layout that `comparison_grid` describes, without its enlargement."""
    shown = max(size, 128 // size * size)
    y = prompt * (TEXT + 2 * (shown + GAP)) + TEXT + model * (shown + GAP)
    x = LABEL + number * (shown + GAP)
    return sheet[y : y + shown : shown // size, x : x + shown : shown // size]


def test_a_comparison_holds_the_images_that_generate_draws(project: Path, params: Params, tmp_path: Path) -> None:
    """Also with another number of seeds and of prompts: an image's noise is its own."""
    compare(params, project / "data", PROMPTS, 2, tmp_path / "grid.png")
    sheet = read_rgb(tmp_path / "grid.png")
    for row, model in enumerate(("base", "tuned")):
        paths = generate(params, project / "data", Asked(PROMPTS[1], model, 3), tmp_path / model)
        assert sorted((tmp_path / model).iterdir()) == sorted(paths) and len(paths) == 3
        for number in range(2):
            drawn = read_rgb(paths[number]).astype(int)
            shown = cell(sheet, params.resolution, 2, prompt=1, model=row, number=number)
            assert np.abs(shown - drawn).max() <= 1


def test_pictures_stand_where_their_labels_are() -> None:
    images = {m: [np.full((4, 4, 3), v + i, np.uint8) for i in range(6)] for m, v in (("base", 10), ("tuned", 20))}
    sheet = np.asarray(comparison_grid(["one", "two"], images))
    # The third image of the second prompt is the sixth of its model.
    assert (cell(sheet, 4, 3, prompt=1, model=1, number=2) == 25).all()
    assert (cell(sheet, 4, 3, prompt=0, model=0, number=1) == 11).all()


def test_the_tuned_model_comes_after_the_base_and_leaves_the_weights(project: Path, params: Params) -> None:
    backbone = load_backbone(params, project / "data/warmup")
    unet = backbone.denoiser
    before = {name: weight.clone() for name, weight in unet.named_parameters()}
    changed = {}
    for model in in_turn(backbone, project / "data/train/lora"):
        inside = {name.replace(".base_layer", ""): weight for name, weight in unet.named_parameters()}
        changed[model] = {name for name in before if not torch.equal(before[name], inside[name])}
    assert not changed["base"]
    assert changed["tuned"] and all(".to_" in name for name in changed["tuned"])
    after = {name.replace(".base_layer", ""): weight for name, weight in unet.named_parameters()}
    assert all(torch.equal(after[name], weight) for name, weight in before.items())


def test_attention_is_of_the_image_that_generate_draws(project: Path, params: Params, tmp_path: Path) -> None:
    backbone = load_backbone(params, project / "data/warmup")
    key = ("generate", 1)
    maps, z = attention_of(backbone, params, PROMPTS[0], key, "generate")
    with torch.no_grad():
        torch.testing.assert_close(
            z, sample_latents(backbone, params, PROMPTS[:1], [key], "generate", params.resolution), rtol=1e-4, atol=1e-4
        )
    # Probabilities over the tokens, averaged: still a distribution at every place.
    torch.testing.assert_close(maps.sum(0), torch.ones_like(maps[0]))
    attention(params, project / "data", PROMPTS[1], 1, tmp_path / "deep/attention.png")
    assert min(Image.open(tmp_path / "deep/attention.png").size) > 300


@pytest.mark.parametrize("command", ["generate", "compare", "attention"])
def test_a_prompt_that_is_too_long_is_one_line(project: Path, monkeypatch: pytest.MonkeyPatch, command: str) -> None:
    """And no warning of transformers before it, which has a handler of its own."""
    monkeypatch.chdir(project)
    warned: list[str] = []
    handler = logging.Handler()
    monkeypatch.setattr(handler, "emit", lambda record: warned.append(record.getMessage()))
    logging.getLogger("transformers").addHandler(handler)
    result = CliRunner().invoke(app, [command, "red " * 30])
    logging.getLogger("transformers").removeHandler(handler)
    assert result.exit_code == 1 and warned == []
    assert result.stderr.startswith("error: the prompt has 32 tokens") and result.stderr.count("\n") == 1


def test_what_cannot_be_drawn_is_named(project: Path, params: Params, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="the prompt is empty"):
        compare(params, project / "data", ["a zebra", " "], 1, tmp_path / "x.png")
    with pytest.raises(UserError, match="would be cut off; shorten it"):
        generate(params, project / "data", Asked("very " * 99, "base", 1), tmp_path)
    with pytest.raises(UserError, match="expected both; run `dvc repro` first"):
        attention(params, tmp_path, "a zebra", 0, tmp_path / "x.png")


def test_an_image_says_what_it_was_drawn_from_and_shares_its_name_with_none(
    project: Path, params: Params, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    """Image 1 alone is the second of two; other steps, guidance or another size are another file."""
    data = project / "data"
    (alone,) = generate(params, data, Asked(PROMPTS[1], "tuned", 1, first=1), tmp_path)
    assert "hint" not in capsys.readouterr().err
    both = generate(params, data, Asked(PROMPTS[1], "tuned", 2), tmp_path)
    assert alone == both[1] and both[0] != alone
    with Image.open(alone) as image:
        said = image.text
        assert image.size == (params.resolution,) * 2
    assert (said["prompt"], said["seed"], said["steps"]) == (PROMPTS[1], "1", str(params.sampling_steps))
    assert said["model"].startswith(f"tuned of {params.base_model} and LoRA ")
    asked = Asked(PROMPTS[0], "base", 1, steps=2, guidance=1.0, size=2 * params.resolution)
    (other,) = generate(params, data, asked, tmp_path)
    assert other.name.startswith("a-zebra-base-0-")
    with Image.open(other) as image:
        assert image.size == (2 * params.resolution,) * 2
        assert (image.text["steps"], image.text["guidance"], image.text["model"]) == (
            "2", "1", f"base of {params.base_model}",
        )  # fmt: skip
    with Image.open(alone) as image:
        assert image.text["warm-up"] == sum_of(data / "warmup/unet")[:12] and image.text["precision"] == "fp32"
    hint = "hint: zebra: the base has hardly seen such words, its tokenizer spells them\n"
    assert hint in capsys.readouterr().err


def test_names_of_files_are_of_any_prompt() -> None:
    said = {"prompt": "../a Größe?\n" + "x" * 99, "model": "tuned of m", "seed": "3", "steps": "5"}
    assert file_name(said).startswith("a-größe-" + "x" * 52 + "-tuned-3-") and "/" not in file_name(said)
    assert file_name(said) != file_name(said | {"steps": "6"}) and file_name(said) == file_name(
        said | {"software": "2"}
    )
    assert file_name(said | {"prompt": "???"}).startswith("prompt-tuned-3-")


def test_words_that_the_shipped_base_knows_are_not_strange() -> None:
    tokenizers = load_tokenizers(str(ROOT / "data/shapes/models/base"))
    assert strange_words(tokenizers, "Three small purple crosses on the left of an orange cone") == []
    assert strange_words(tokenizers, "a turquoise zebra and a red ball in a kitchen") == [
        "turquoise",
        "zebra",
        "kitchen",
    ]
