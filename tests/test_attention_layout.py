"""Sizes of attention maps: of feature maps that a UNet halves, odd ones too."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from comat.diffusion.attention import cross_layout, recorded_maps
from comat.diffusion.backbones import load_base
from comat.diffusion.backbones.base import Backbone
from comat.randomness import generator
from tests.test_real_architectures import backbone
from tests.tiny_models import save_sd15


@pytest.mark.parametrize(
    ("latents", "sizes"),
    [
        ((64, 64), [(64, 64), (32, 32), (16, 16), (8, 8)]),
        ((68, 68), [(68, 68), (34, 34), (17, 17), (9, 9)]),
        ((17, 17), [(17, 17), (9, 9), (5, 5), (3, 3)]),
        ((9, 5), [(9, 5), (5, 3), (3, 2), (2, 1)]),
        ((4, 33), [(4, 33), (2, 17), (1, 9), (1, 5)]),
    ],
)
def test_a_halved_map_keeps_the_larger_half(latents: tuple[int, int], sizes: list[tuple[int, int]]) -> None:
    layout = cross_layout(latents)
    assert [layout(height * width, 77).size for height, width in sizes] == sizes


def sides(model: Backbone, px: int) -> dict[str, set[tuple[int, ...]]]:
    """The sizes of the maps of each block, by a forward pass at `px` pixels."""
    prompts = model.encode_prompts(["a red ball"])
    z = torch.randn(1, *model.latent_shape(px), generator=generator(0, "z")).to(model.device)
    with torch.no_grad(), recorded_maps(model.denoiser, model.attention_layers()) as recording:
        assert model.guided(z, torch.tensor(1, device=model.device), prompts, 4.0).shape == z.shape
    found: dict[str, set[tuple[int, ...]]] = {}
    for layer, values in recording.collect(model.layout(z.shape[-2:]), 1).items():
        found.setdefault(layer.split(".attentions")[0], set()).add(tuple(values.shape[2:4]))
    return found


def test_maps_of_odd_latents(tmp_path: Path) -> None:
    """34 px are 17 x 17 latents of the twin: 9 x 9 behind the first block, 5 x 5 behind the second."""
    three = {
        "block_out_channels": (8, 16, 16),
        "down_block_types": ("CrossAttnDownBlock2D",) * 3,
        "up_block_types": ("CrossAttnUpBlock2D",) * 3,
    }
    assert sides(load_base(str(save_sd15(tmp_path, **three))), 34) == {
        **{"down_blocks.0": {(17, 17)}, "down_blocks.1": {(9, 9)}, "down_blocks.2": {(5, 5)}, "mid_block": {(5, 5)}},
        **{"up_blocks.0": {(5, 5)}, "up_blocks.1": {(9, 9)}, "up_blocks.2": {(17, 17)}},
    }


def test_maps_of_the_real_sd15_at_544() -> None:
    found = sides(backbone("sd15"), 544)
    assert found["mid_block"] == {(9, 9)}
    assert [found[f"up_blocks.{number}"] for number in (1, 2, 3)] == [{(17, 17)}, {(34, 34)}, {(68, 68)}]
