"""SD1.5, SD2.1, SDXL and the captioners as they are, on the meta device: sizes, maps and resolutions, LoRA names."""

from __future__ import annotations

from collections import Counter

import pytest
import torch
from diffusers import StableDiffusionPipeline, StableDiffusionXLPipeline

from comat.diffusion.attention import recorded_maps
from comat.diffusion.backbones import Backbone
from comat.diffusion.lora import add_lora, lora_state
from comat.estimate.architectures import build_backbone, build_captioner, build_unet, count_parameters, meta
from comat.randomness import generator
from comat.shapes.recipe.tokenizers import clip_tokenizer

PIPELINES = {"sd15": StableDiffusionPipeline, "sd2": StableDiffusionPipeline, "sdxl": StableDiffusionXLPipeline}


def backbone(name: str) -> Backbone:
    tokenizer = clip_tokenizer()
    tokenizer.model_max_length = 77
    return meta(build_backbone, name, tokenizer)


@pytest.mark.parametrize(
    ("name", "unet", "vae", "text"),
    [
        ("sd15", 859_520_964, 83_653_863, [123_060_480]),
        ("sd2", 865_910_724, 83_653_863, [340_387_840]),
        ("sdxl", 2_567_463_684, 83_653_863, [123_060_480, 694_659_840]),
    ],
)
def test_sizes(name: str, unet: int, vae: int, text: list[int]) -> None:
    model = backbone(name)
    assert count_parameters(model.denoiser) == unet
    assert count_parameters(model.vae) == vae
    assert [count_parameters(encoder) for encoder in model.text_encoders] == text


@pytest.mark.parametrize(("name", "millions"), [("blip", 469 - 30524 * 768 / 1e6), ("git", 394), ("llava", 7063)])
def test_sizes_of_the_captioners(name: str, millions: float) -> None:
    """Table 7: BLIP 469M, which counts the word embeddings and the tied output layer, and GIT 394M.

    LLaVA is 6,738M of Llama, 64 tokens of 2 x 4096 weights, 304M of CLIP and 21M of projector; Table 7 says 7.2B.
    """
    assert count_parameters(meta(build_captioner, name)) / 1e6 == pytest.approx(millions, rel=0.003)


@pytest.mark.parametrize(("name", "size"), [("sd15", 25_509_888), ("sd2", 26_558_464), ("sdxl", 185_794_560)])
def test_lora_of_rank_128(name: str, size: int) -> None:
    """Of SD2: 128 (14 c + 2 * 1024) a block of width c, five of 320, five of 640 and six of 1280."""
    weights = add_lora(backbone(name), 128, generator(0, "lora"))
    assert sum(weight.numel() for weight in weights) == size
    assert {weight.dtype for weight in weights} == {torch.float32}


@pytest.mark.parametrize(
    ("name", "counts"), [("sd15", [1, 0, 3, 3, 3]), ("sd2", [1, 0, 3, 3, 3]), ("sdxl", [10, 30, 6, 0])]
)
def test_maps_are_of_the_middle_and_the_decoder(name: str, counts: list[int]) -> None:
    """By block: middle, then the decoder's from its coarsest; in this order."""
    layers = backbone(name).map_layers()
    blocks = ["mid_block", *(f"up_blocks.{i}" for i in range(len(counts) - 1))]
    found = [next(block for block in blocks if layer.startswith(f"{block}.")) for layer in layers]
    assert [found.count(block) for block in blocks] == counts
    assert found == sorted(found, key=blocks.index)


@pytest.mark.parametrize(
    ("name", "sides"),
    [
        # heads: 8 in each layer of sd15; one for every 64 channels of 1280, 640 and 320 in the others
        ("sd15", {("mid_block", 8, 8): 1, ("up_blocks", 16, 8): 3, ("up_blocks", 32, 8): 3, ("up_blocks", 64, 8): 3}),
        ("sd2", {("mid_block", 8, 20): 1, ("up_blocks", 16, 20): 3, ("up_blocks", 32, 10): 3, ("up_blocks", 64, 5): 3}),
        ("sdxl", {("mid_block", 16, 20): 10, ("up_blocks", 16, 20): 30, ("up_blocks", 32, 10): 6}),
    ],
)
def test_resolutions_of_the_maps_at_512(name: str, sides: dict) -> None:
    model = backbone(name)
    prompts = model.encode_prompts(["a red ball"])
    z = torch.zeros(1, *model.latent_shape(512), device="meta")
    with recorded_maps(model.denoiser, model.map_layers()) as maps:
        assert model.guided(z, torch.tensor(1, device="meta"), prompts, 7.5).shape == z.shape
    found = Counter()
    for layer, values in maps.collect(model.layout(z.shape[-2:]), 1).items():
        batch, heads, height, width, tokens = values.shape
        assert (batch, height, tokens) == (1, width, 77)
        found[layer.split(".")[0], height, heads] += 1
    assert found == sides


@pytest.mark.parametrize("name", PIPELINES)
def test_exported_lora_has_the_names_that_diffusers_expects(name: str) -> None:
    """diffusers' own reader finds every weight, and a plain UNet takes each of them."""
    model = backbone(name)
    add_lora(model, 4, generator(0, "lora"))
    exported = model.exported_lora(lora_state(model.denoiser))
    attention = [n for n, _ in model.denoiser.named_modules() if n.endswith((".attn1", ".attn2"))]
    assert len(exported) == len(attention) * 4 * 2
    state, alphas = PIPELINES[name].lora_state_dict(dict(exported))
    assert set(state) == set(exported) and not alphas
    other = meta(build_unet, name)
    other.load_lora_adapter(state, prefix="unet", adapter_name="default", low_cpu_mem_usage=True)
    assert set(model.exported_lora(lora_state(other))) == set(exported)
