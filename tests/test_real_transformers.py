"""SD3.5 medium, PixArt-Sigma and FLUX.1 as they are, on the meta device: sizes, LoRA, map layers at 512 px."""

from __future__ import annotations

from functools import cache

import pytest
import torch

from comat.diffusion.attention import recorded_maps
from comat.diffusion.backbones import Backbone
from comat.diffusion.lora import add_lora, lora_state
from comat.estimate.architectures import count_parameters, meta
from comat.estimate.cost import AsOnDevice
from comat.estimate.transformer_models import PIPELINES, build_transformer
from comat.models.families import BY_PIPELINE
from comat.params import load
from comat.randomness import generator
from comat.shapes.recipe.tokenizers import clip_tokenizer
from comat.tokenizers import as_read
from tests.conftest import ROOT
from tests.tiny_families import t5_tokenizer


@cache
def backbone(name: str) -> Backbone:
    clip, t5 = clip_tokenizer(), t5_tokenizer()
    clip.model_max_length = 77
    (text,) = [text for text in BY_PIPELINE[PIPELINES[name]].texts if text.length]
    return meta(build_transformer, name, clip, as_read(t5, text))


@pytest.mark.parametrize(
    ("name", "transformer", "text"),
    [
        ("sd35-medium", 2_243_171_520, [123_650_304, 694_659_840, 4_762_310_656]),
        ("pixart-sigma", 610_856_096, [4_762_310_656]),
        ("flux-dev", 11_901_408_320, [123_060_480, 4_762_310_656]),
    ],
)
def test_sizes(name: str, transformer: int, text: list[int]) -> None:
    """CLIP-L with SD3's projection of 768 x 768 more; T5-XXL's encoder alone."""
    model = backbone(name)
    assert count_parameters(model.denoiser) == transformer
    assert [count_parameters(encoder) for encoder in model.text_encoders] == text


@pytest.mark.parametrize(
    ("name", "layers", "heads", "text"),
    [("sd35-medium", 12, 24, 77 + 256), ("pixart-sigma", 14, 16, 300), ("flux-dev", 10, 24, 512)],
)
def test_maps_at_512(name: str, layers: int, heads: int, text: int) -> None:
    """64 x 64 latents, 32 x 32 patches, in the later half of the blocks: of 24, 28, and the 19 double ones."""
    model = backbone(name)
    with AsOnDevice():
        prompts = model.encode_prompts(["a red ball"])
    z = torch.zeros(1, *model.latent_shape(512), device="meta")
    with torch.no_grad(), recorded_maps(model.denoiser, model.map_layers()) as maps:
        assert model.guided(z, torch.tensor(1.0, device="meta"), prompts, 3.5).shape == z.shape
    found = maps.collect(model.layout(z.shape[-2:]), 1)
    assert len(found) == layers
    assert {tuple(values.shape) for values in found.values()} == {(1, heads, 32, 32, text)}


@pytest.mark.parametrize("name", PIPELINES)
def test_lora_of_the_presets(name: str) -> None:
    """By hand: a projection of n by m has rank * (n + m) weights.

    SD3.5: 24 joint blocks of 8 projections of 1536, of which the last lacks the text's output, and 13 more of 4 for the
    image alone. PixArt: 28 blocks of 2 x 4 of 1152. FLUX.1: 19 double blocks of 8 and 38 single ones of 3, of 3072.
    """
    rank = load(ROOT / f"presets/{name}.yaml").lora_rank
    projections, width = {
        "sd35-medium": (24 * 8 - 1 + 13 * 4, 1536),
        "pixart-sigma": (28 * 2 * 4, 1152),
        "flux-dev": (19 * 8 + 38 * 3, 3072),
    }[name]
    model = meta(_fresh, name)
    weights = add_lora(model, rank, generator(0, "lora"))
    assert sum(weight.numel() for weight in weights) == projections * rank * 2 * width
    exported = model.exported_lora(lora_state(model.denoiser))
    assert len(exported) == 2 * projections and all(key.startswith("transformer.") for key in exported)


def _fresh(name: str) -> Backbone:
    return backbone.__wrapped__(name)
