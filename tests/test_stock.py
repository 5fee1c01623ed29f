"""How diffusers' own pipelines are asked for what is drawn here."""

from __future__ import annotations

import diffusers
import pytest

from comat.diffusion.stock import stock_options


@pytest.mark.parametrize(
    ("pipeline", "expected"),
    [
        ("StableDiffusionXLPipeline", {"guidance_scale": 4.0}),
        ("FluxPipeline", {"guidance_scale": 4.0}),  # its true_cfg_scale is another matter, and off
        ("PixArtSigmaPipeline", {"guidance_scale": 4.0, "use_resolution_binning": False, "clean_caption": False}),
        ("SanaPipeline", {"guidance_scale": 4.0, "use_resolution_binning": False, "clean_caption": False}),
        ("QwenImagePipeline", {"true_cfg_scale": 4.0, "negative_prompt": [" ", " "]}),
        ("ZImagePipeline", {"guidance_scale": 3.0}),  # by how much more than the prompt alone
        ("KandinskyV22CombinedPipeline", {"guidance_scale": 4.0}),  # of no family that is trained
    ],
)
def test_a_guidance_of_four_is_four_times_the_prompt_s_direction(pipeline: str, expected: dict) -> None:
    kind = getattr(diffusers, pipeline)
    assert stock_options(kind, 4.0, 2) == expected
    if "negative_prompt" in expected:
        assert stock_options(kind, 4.0) == {**expected, "negative_prompt": " "}
        assert stock_options(kind, 1.0) == {}
