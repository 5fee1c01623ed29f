"""Sana 1.6B, Qwen-Image and Z-Image as they are, on the meta device: sizes, LoRA, map layers at their resolution.

The transformers are diffusers' own defaults, which are the published models; of the text encoders the configurations of
google/gemma-2-2b-it, Qwen/Qwen2.5-VL-7B-Instruct and Qwen/Qwen3-4B.
"""

from __future__ import annotations

from functools import cache

import pytest
import torch
from transformers import (
    Gemma2Config,
    PreTrainedConfig,
    PreTrainedTokenizerBase,
    Qwen2_5_VLConfig,
    Qwen3Config,
)

from comat.diffusion.attention import recorded_maps
from comat.diffusion.backbones import Backbone, backbone_class
from comat.diffusion.backbones.autoencoder import CODERS
from comat.diffusion.lora import add_lora, lora_state
from comat.estimate.architectures import count_parameters, meta
from comat.estimate.cost import AsOnDevice
from comat.estimate.transformer_models import VAE_16
from comat.models.families import BY_PIPELINE
from comat.randomness import generator
from comat.tokenizers import as_read
from tests.tiny_families import gemma_tokenizer, qwen_tokenizer

RANK = 32
FLOW = {"_class_name": "FlowMatchEulerDiscreteScheduler", "shift": 3.0}
AUTOENCODERS: dict[str, dict] = {"SanaPipeline": {}, "QwenImagePipeline": {}, "ZImagePipeline": VAE_16}


def texts(name: str) -> tuple[PreTrainedTokenizerBase, PreTrainedConfig]:
    if name == "SanaPipeline":
        return gemma_tokenizer(), Gemma2Config(
            vocab_size=256000,
            hidden_size=2304,
            intermediate_size=9216,
            num_hidden_layers=26,
            num_attention_heads=8,
            num_key_value_heads=4,
            head_dim=256,
        )
    if name == "QwenImagePipeline":
        rope = {"rope_type": "default", "mrope_section": [16, 24, 24], "rope_theta": 1000000.0}
        language = {
            "vocab_size": 152064,
            "hidden_size": 3584,
            "intermediate_size": 18944,
            "num_hidden_layers": 28,
            "num_attention_heads": 28,
            "num_key_value_heads": 4,
            "rope_parameters": rope,
        }
        eyes = {"depth": 32, "hidden_size": 1280, "intermediate_size": 3420, "num_heads": 16, "out_hidden_size": 3584}
        return qwen_tokenizer(), Qwen2_5_VLConfig(text_config=language, vision_config=eyes, tie_word_embeddings=False)
    return qwen_tokenizer(), Qwen3Config(
        vocab_size=151936,
        hidden_size=2560,
        intermediate_size=9728,
        num_hidden_layers=36,
        num_attention_heads=32,
        num_key_value_heads=8,
        head_dim=128,
        tie_word_embeddings=True,
    )


def build(name: str) -> Backbone:
    family = BY_PIPELINE[name]
    kind = backbone_class(family)
    tokenizer, config = texts(name)
    vae = CODERS[family.vae].KIND(**AUTOENCODERS[name])
    encoder, read = kind.ENCODERS[0](config), as_read(tokenizer, family.texts[0])
    return kind(family, family.texts, kind.DENOISER(), vae, [encoder], [read], FLOW)


@cache
def backbone(name: str) -> Backbone:
    return meta(build, name)


@pytest.mark.parametrize(
    ("name", "transformer", "text"),
    [
        ("SanaPipeline", 1_604_462_752, 2_614_341_888),
        ("QwenImagePipeline", 20_430_401_088, 8_292_166_656),
        ("ZImagePipeline", 6_154_908_736, 4_022_468_096),
    ],
)
def test_sizes(name: str, transformer: int, text: int) -> None:
    model = backbone(name)
    assert (count_parameters(model.denoiser), count_parameters(model.text_encoders[0])) == (transformer, text)


@pytest.mark.parametrize(
    ("name", "layers", "heads", "side", "text"),
    [("SanaPipeline", 10, 20, 32, 300), ("QwenImagePipeline", 30, 24, 64, 512), ("ZImagePipeline", 15, 30, 64, 512)],
)
def test_maps_at_1024(name: str, layers: int, heads: int, side: int, text: int) -> None:
    """Sana's autoencoder reduces 32 times, the others 8 times, and their patches are 2 x 2."""
    model = backbone(name)
    with AsOnDevice():
        prompts = model.encode_prompts(["a red ball"])
    z = torch.zeros(1, *model.latent_shape(1024), device="meta")
    with torch.no_grad(), AsOnDevice(), recorded_maps(model.denoiser, model.map_layers()) as maps:
        assert model.guided(z, torch.tensor(1.0, device="meta"), prompts, 3.5).shape == z.shape
    found = maps.collect(model.layout(z.shape[-2:]), 1)
    assert len(found) == layers
    assert {tuple(values.shape) for values in found.values()} == {(1, heads, side, side, text)}


@pytest.mark.parametrize(
    ("name", "projections", "width"),
    [("SanaPipeline", 20 * 8, 2240), ("QwenImagePipeline", 60 * 8, 3072), ("ZImagePipeline", (30 + 4) * 4, 3840)],
)
def test_lora(name: str, projections: int, width: int) -> None:
    """By hand: 20 blocks of 2 x 4; 60 of 8; 30, and 2 for the image and 2 for the text, of 4; all square."""
    model = meta(build, name)
    weights = add_lora(model, RANK, generator(0, "lora"))
    assert sum(weight.numel() for weight in weights) == projections * RANK * 2 * width
    exported = model.exported_lora(lora_state(model.denoiser))
    assert len(exported) == 2 * projections and all(key.startswith("transformer.") for key in exported)
