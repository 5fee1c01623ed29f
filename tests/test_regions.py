"""Plans of regions: how they are read, which cells are whose, and what is drawn of them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from benchmarks.composition import plan_of
from comat.diffusion.backbones import load_base
from comat.diffusion.sampling import sample_latents
from comat.errors import UserError
from comat.finished.compose import compose
from comat.params import SamplingParams, load
from comat.samples.methods.base import Told, sample_by
from comat.samples.regions import Plan, Regional, masks, read_plan
from comat.shapes.world.captions import parse_prompt
from tests.tiny_families import save_sd3

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


def test_each_half_reads_its_own_description(tiny: Path) -> None:
    """With no base, the last cross-attention of a step says on the left what it says of the left description of the
    same features, on the right what of the right one; the half without a prompt is left alone."""
    backbone = load_base(str(tiny / "sd15"))
    sampler = backbone.sampler("ddpm", 4, (16, 16))
    x, t = torch.randn(1, 4, 16, 16, generator=torch.Generator().manual_seed(0)), sampler.timesteps[1]
    layer = backbone.denoiser.get_submodule(backbone.attention_layers()[0])
    kept: list = []
    drawing = Regional([plan(base_ratio=0.0)], (16, 16)).begin(backbone, sampler, [Told(TWO["base_prompt"])], 3.0)
    with torch.no_grad(), drawing._by_regions((16, 16)):
        keep = layer.register_forward_hook(lambda _, args, out: kept.extend((args[0], out)))
        backbone.guided(x, t, drawing.prompts, 3.0)
        keep.remove()
    hidden, found = kept
    side = int(hidden.shape[1] ** 0.5)
    with torch.no_grad():
        left, right = (
            layer(hidden[1:], encoder_hidden_states=backbone.encode_prompts([text]).tokens).unflatten(1, (side, side))
            for text in ("a red ball", "a blue cube")
        )
        nothing = layer(hidden[:1], encoder_hidden_states=backbone.null.tokens)
    found_half = found[1:].unflatten(1, (side, side))
    torch.testing.assert_close(found_half[:, :, : side // 2], left[:, :, : side // 2], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(found_half[:, :, side // 2 :], right[:, :, side // 2 :], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(found[:1], nothing, atol=1e-5, rtol=1e-5)


def test_joint_attention_is_refused(tmp_path: Path) -> None:
    backbone = load_base(str(save_sd3(tmp_path / "model")))
    with pytest.raises(UserError, match="Stable Diffusion 1, 2 and XL"):
        Regional([plan()], (16, 16)).begin(backbone, backbone.sampler("model", 4, (16, 16)), [], 3.0)


def test_a_faultless_planner_puts_each_object_on_its_side() -> None:
    """ "A below B": A in the lower half, so the second region."""
    for relation, split, order in (
        ("on the left of", "1,1", ("a red ball", "a blue cube")),
        ("on the right of", "1,1", ("a blue cube", "a red ball")),
        ("above", "1;1", ("a red ball", "a blue cube")),
        ("below", "1;1", ("a blue cube", "a red ball")),
    ):
        made = plan_of(parse_prompt(f"a red ball {relation} a blue cube"), 0.3)
        assert (made.split_ratio, made.regional_prompt) == (split, order)
    top = masks(plan_of(parse_prompt("a red ball below a blue cube"), 0.3), (2, 2))
    assert top.int().tolist() == [[[1, 1], [0, 0]], [[0, 0], [1, 1]]]


def test_compose_draws_a_plan_by_both_models(project: Path, tmp_path: Path) -> None:
    """The command on a finished project: two rows of two images; a plan that does not fit leaves no picture."""
    good, bad, out = tmp_path / "plan.json", tmp_path / "bad.json", tmp_path / "composed.png"
    good.write_text(json.dumps(TWO))
    bad.write_text(json.dumps({**TWO, "split_ratio": "1000,1"}))
    params = load(project / "params.yaml")
    compose(params, project / "data", good, 2, out)
    assert Image.open(out).size[0] > 2 * params.resolution
    out.unlink()
    with pytest.raises(UserError, match="narrower than a cell"):
        compose(params, project / "data", bad, 2, out)
    assert not out.exists()
