"""Plans of regions: how they are read, which cells are whose, and what is drawn of them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from comat.diffusion.backbones import load_base
from comat.diffusion.sampling import sample_latents
from comat.errors import UserError
from comat.params import SamplingParams
from comat.samples.methods.base import Told, sample_by
from comat.samples.regions import Plan, Regional, masks, read_plan

PARAMS = SamplingParams(
    seed=0, resolution=32, native_resolution=32, scheduler="ddpm", sampling_steps=4, guidance_scale=3.0
)
TWO = {
    "base_prompt": "a red ball and a blue cube",
    "split_ratio": "1,1",
    "regional_prompt": "a red ball BREAK a blue cube",
}


def plan(**changes: object) -> Plan:
    return Plan.model_validate({**TWO, **changes})


def test_boxes_by_hand() -> None:
    """ "1;2,1,3": a row of a third, then one of two thirds, a quarter and three quarters wide."""
    three = plan(split_ratio="1;2,1,3", regional_prompt=["a", "b", "c"])
    assert three.boxes() == [(0, 1 / 3, 0, 1), (1 / 3, 1, 0, 0.25), (1 / 3, 1, 0.25, 1)]
    assert plan().boxes() == [(0, 1, 0, 0.5), (0, 1, 0.5, 1)] and plan().regional_prompt == (
        "a red ball",
        "a blue cube",
    )
    found = masks(plan(), (2, 4)).int().tolist()
    assert found == [[[1, 1, 0, 0]] * 2, [[0, 0, 1, 1]] * 2]


@given(st.lists(st.lists(st.integers(1, 4), min_size=2, max_size=4), min_size=2, max_size=3))
def test_every_cell_belongs_to_one_region(rows: list[list[int]]) -> None:
    count = sum(len(row) - 1 for row in rows)
    split = ";".join(",".join(map(str, row)) for row in rows)
    found = masks(plan(split_ratio=split, regional_prompt=["x"] * count), (64, 64))
    assert found.sum(0).eq(1).all() and found.flatten(1).any(1).all()


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"split_ratio": "1,1,1"}, "makes 3 regions, regional_prompt holds 2"),
        ({"split_ratio": "1,-1"}, "positive numbers"),
        ({"split_ratio": "1,nan"}, "positive numbers"),
        ({"split_ratio": "left,right"}, "positive numbers"),
        ({"base_ratio": 1.5}, "base_ratio"),
        ({"regional_prompt": ["a", ""]}, "regional_prompt"),
        ({"prompt": "x"}, "prompt"),
    ],
)
def test_a_plan_that_is_none_is_one_line(tmp_path: Path, changes: dict, expected: str) -> None:
    path = tmp_path / "plan.json"
    path.write_text(json.dumps({**TWO, **changes}))
    with pytest.raises(UserError, match=expected) as error:
        read_plan(path)
    assert "plan.json" in str(error.value) and "\n" not in str(error.value)


def test_a_region_without_a_cell_is_refused() -> None:
    with pytest.raises(UserError, match=r"region 2 .*narrower than a cell"):
        masks(plan(split_ratio="1000,1"), (8, 8))


@pytest.mark.parametrize("model", ["sd15", "sdxl"])
def test_one_region_or_the_base_alone_is_plain_sampling(tiny: Path, model: str) -> None:
    """The same description everywhere, and a plan of which only the base counts, draw what sampling draws."""
    backbone = load_base(str(tiny / model))
    shape = backbone.latent_shape(32)
    prompt, key = TWO["base_prompt"], ("a", 0)
    plain = sample_latents(backbone, PARAMS, [prompt], [key], "sample", 32)
    for same in (
        plan(regional_prompt=[prompt, prompt], base_ratio=0.3),
        plan(base_ratio=1.0),
    ):
        regional = Regional([same], (shape[1], shape[2]))
        found = sample_by(regional, backbone, PARAMS, [Told(prompt)], [key], "sample")
        torch.testing.assert_close(found, plain, atol=1e-4, rtol=1e-4)


def test_one_step_is_each_regions_own_prediction(tiny: Path) -> None:
    """With no base, the left half of the prediction is that of the left description, the right half the right's."""
    backbone = load_base(str(tiny / "sd15"))
    sampler = backbone.sampler("ddpm", 4, (16, 16))
    x, t = torch.randn(1, 4, 16, 16, generator=torch.Generator().manual_seed(0)), sampler.timesteps[1]
    drawing = Regional([plan(base_ratio=0.0)], (16, 16)).begin(backbone, sampler, [Told(TWO["base_prompt"])], 3.0)
    left, right = (
        backbone.guided(x, t, backbone.encode_prompts([text]), 3.0) for text in ("a red ball", "a blue cube")
    )
    with torch.no_grad():
        found = drawing.guided(x, t)
    torch.testing.assert_close(found[..., :8], left[..., :8], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(found[..., 8:], right[..., 8:], atol=1e-5, rtol=1e-5)
