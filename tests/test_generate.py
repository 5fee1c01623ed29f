"""`comat generate`, `compare` and `attention`: any prompt with the models of a finished run."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from comat.diffusion.load import load_backbone
from comat.diffusion.lora import in_turn
from comat.diffusion.sampling import attention_of, sample_latents
from comat.errors import UserError
from comat.finished.generate import attention, compare, generate
from comat.params import Params, load
from comat.reporting.grid import GAP, LABEL, TEXT, comparison_grid
from comat.storage.images import read_rgb

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
        generate(params, project / "data", PROMPTS[1], 3, model, tmp_path / model)
        assert len(list((tmp_path / model).iterdir())) == 3
        for number in range(2):
            drawn = read_rgb(tmp_path / model / f"{number}.png").astype(int)
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


def test_what_cannot_be_drawn_is_named(project: Path, params: Params, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="the prompt is empty"):
        compare(params, project / "data", ["a zebra", " "], 1, tmp_path / "x.png")
    with pytest.raises(UserError, match="would be cut off; shorten it"):
        generate(params, project / "data", "very " * 99, 1, "base", tmp_path)
    with pytest.raises(UserError, match="expected both; run `dvc repro` first"):
        attention(params, tmp_path, "a zebra", 0, tmp_path / "x.png")
