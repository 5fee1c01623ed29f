"""The real models' configurations, as their authors published them: enough to build each without its weights.

For tests and estimates on the meta device and for benchmarks with random weights. What runs is always read from the
model itself.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import ParamSpec, TypeVar

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from torch import nn
from transformers import (
    BlipConfig,
    BlipForConditionalGeneration,
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    CLIPVisionConfig,
    GitConfig,
    GitForCausalLM,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from comat.diffusion.backbones import Backbone, backbone_class
from comat.estimate.cost import AsOnDevice
from comat.models.families import BY_PIPELINE

P = ParamSpec("P")
N = TypeVar("N")

SD = {  # what the unet/config.json of Stable Diffusion 1.5 and 2.1 share
    "in_channels": 4,
    "out_channels": 4,
    "down_block_types": (*("CrossAttnDownBlock2D",) * 3, "DownBlock2D"),
    "up_block_types": ("UpBlock2D", *("CrossAttnUpBlock2D",) * 3),
    "block_out_channels": (320, 640, 1280, 1280),
    "layers_per_block": 2,
}
UNETS: dict[str, dict] = {
    # stable-diffusion-v1-5/stable-diffusion-v1-5
    "sd15": {**SD, "sample_size": 64, "cross_attention_dim": 768, "attention_head_dim": 8},
    "sd2": {  # stabilityai/stable-diffusion-2-1
        **SD,
        "sample_size": 96,
        "cross_attention_dim": 1024,
        "attention_head_dim": (5, 10, 20, 20),
        "use_linear_projection": True,
        "upcast_attention": True,
    },
    "sdxl": {  # stabilityai/stable-diffusion-xl-base-1.0, unet/config.json
        "sample_size": 128,
        "in_channels": 4,
        "out_channels": 4,
        "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        "block_out_channels": (320, 640, 1280),
        "layers_per_block": 2,
        "transformer_layers_per_block": (1, 2, 10),
        "cross_attention_dim": 2048,
        "attention_head_dim": (5, 10, 20),
        "use_linear_projection": True,
        "addition_embed_type": "text_time",
        "addition_time_embed_dim": 256,
        "projection_class_embeddings_input_dim": 2816,
    },
}
VAE = {  # each model's vae/config.json but for the scale of its latents
    "down_block_types": ("DownEncoderBlock2D",) * 4,
    "up_block_types": ("UpDecoderBlock2D",) * 4,
    "block_out_channels": (128, 256, 512, 512),
    "layers_per_block": 2,
    "latent_channels": 4,
}
SCALES = {"sd15": 0.18215, "sd2": 0.18215, "sdxl": 0.13025}
VAES = {name: {**VAE, "scaling_factor": scale} for name, scale in SCALES.items()}
CLIP_L = {  # openai/clip-vit-large-patch14: text_encoder of sd15 and sdxl
    "hidden_size": 768,
    "intermediate_size": 3072,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "projection_dim": 768,
}
CLIP_H = {  # laion/CLIP-ViT-H-14 without its last layer: text_encoder of sd2
    "hidden_size": 1024,
    "intermediate_size": 4096,
    "num_hidden_layers": 23,
    "num_attention_heads": 16,
    "projection_dim": 512,
    "hidden_act": "gelu",
}
CLIP_G = {  # laion/CLIP-ViT-bigG-14: text_encoder_2 of SDXL
    "hidden_size": 1280,
    "intermediate_size": 5120,
    "num_hidden_layers": 32,
    "num_attention_heads": 20,
    "projection_dim": 1280,
    "hidden_act": "gelu",
}
VIT_L = {"hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 24, "num_attention_heads": 16}
NOISE = {  # scheduler/scheduler_config.json of each; sd2 predicts velocity
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "num_train_timesteps": 1000,
    "steps_offset": 1,
}


def build_unet(name: str) -> UNet2DConditionModel:
    """The UNet of "sd15", "sd2" or "sdxl" on the default device, untrained."""
    return UNet2DConditionModel(**UNETS[name])


def build_vae(name: str) -> AutoencoderKL:
    return AutoencoderKL(**VAES[name])


def build_text_encoders(name: str) -> list[PreTrainedModel]:
    encoders: list[PreTrainedModel] = [CLIPTextModel(CLIPTextConfig.from_dict(CLIP_H if name == "sd2" else CLIP_L))]
    if name == "sdxl":
        encoders.append(CLIPTextModelWithProjection(CLIPTextConfig.from_dict(CLIP_G)))
    return encoders


def build_captioner(name: str) -> nn.Module:
    """The captioners of Table 5, at the sizes that the presets name: "blip", "git" (both large) or "llava" (7B)."""
    if name == "blip":  # Salesforce/blip-image-captioning-large
        text = {"vocab_size": 30524, "encoder_hidden_size": 1024}
        return BlipForConditionalGeneration(BlipConfig(vision_config=_vit_l(384, 16), text_config=text))
    if name == "git":  # microsoft/git-large-coco
        return GitForCausalLM(GitConfig(vision_config=_vit_l(224, 14), vocab_size=30522))
    if name == "llava":  # llava-hf/llava-1.5-7b-hf: Vicuna 7B
        vision = CLIPVisionConfig.from_dict({**_vit_l(336, 14), "projection_dim": 768})
        return LlavaForConditionalGeneration(
            LlavaConfig(vision_config=vision, text_config=LlamaConfig(vocab_size=32064))
        )
    raise ValueError(f"captioner {name!r}: expected 'blip', 'git' or 'llava'")


def _vit_l(image_size: int, patch_size: int) -> dict[str, int]:
    return {**VIT_L, "image_size": image_size, "patch_size": patch_size}


def build_backbone(name: str, tokenizer: PreTrainedTokenizerBase) -> Backbone:
    """The whole model. Only the text of prompts depends on `tokenizer`, not a shape but for its length (77)."""
    encoders = build_text_encoders(name)
    tokenizers = [tokenizer] * len(encoders)
    schedule = {**NOISE, "prediction_type": "v_prediction" if name == "sd2" else "epsilon"}
    parts = build_unet(name), build_vae(name), encoders, tokenizers, schedule
    return put_together(*parts, force_zeros_for_empty_prompt=name == "sdxl")


def put_together(
    unet: UNet2DConditionModel,
    vae: AutoencoderKL,
    encoders: Sequence[PreTrainedModel],
    tokenizers: Sequence[PreTrainedTokenizerBase],
    schedule: dict,
    **index: object,
) -> Backbone:
    """Stable Diffusion of parts that are there: XL where it has two text encoders; `index` as in model_index.json."""
    family = BY_PIPELINE["StableDiffusionXLPipeline" if len(encoders) == 2 else "StableDiffusionPipeline"]
    return backbone_class(family)(family, family.texts, unet, vae, encoders, tokenizers, schedule, index)


def count_parameters(module: nn.Module) -> int:
    return sum(weight.numel() for weight in module.parameters())


def meta(build: Callable[P, N], *args: P.args, **kwargs: P.kwargs) -> N:
    """Build on torch's meta device: shapes without storage."""
    with torch.device("meta"), AsOnDevice():
        return build(*args, **kwargs)
