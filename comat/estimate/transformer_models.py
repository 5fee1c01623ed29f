"""Diffusion transformers as their authors published them: configurations enough to build each without its weights.

As `comat.estimate.architectures` for UNets: for tests and estimates on the meta device.
"""

from __future__ import annotations

from typing import Any

from diffusers import AutoencoderKL
from transformers import CLIPTextConfig, PreTrainedTokenizerBase, T5Config, T5EncoderModel

from comat.diffusion.backbones import Backbone, backbone_class
from comat.estimate.architectures import CLIP_G, CLIP_L, NOISE, VAES
from comat.models.families import BY_PIPELINE

T5_XXL: dict[str, Any] = {
    "vocab_size": 32128,
    "d_model": 4096,
    "d_ff": 10240,
    "d_kv": 64,
    "num_heads": 64,
    "num_layers": 24,
    "feed_forward_proj": "gated-gelu",
}
VAE_16: dict[str, Any] = {
    "block_out_channels": (128, 256, 512, 512),
    "down_block_types": ("DownEncoderBlock2D",) * 4,
    "up_block_types": ("UpDecoderBlock2D",) * 4,
    "layers_per_block": 2,
    "latent_channels": 16,
    "use_quant_conv": False,
    "use_post_quant_conv": False,
}
PIPELINES = {
    "sd35-medium": "StableDiffusion3Pipeline",
    "pixart-sigma": "PixArtSigmaPipeline",
    "flux-dev": "FluxPipeline",
}
TRANSFORMERS: dict[str, dict[str, Any]] = {
    "sd35-medium": {  # stabilityai/stable-diffusion-3.5-medium, transformer/config.json
        "sample_size": 128,
        "patch_size": 2,
        "in_channels": 16,
        "num_layers": 24,
        "attention_head_dim": 64,
        "num_attention_heads": 24,
        "joint_attention_dim": 4096,
        "caption_projection_dim": 1536,
        "pooled_projection_dim": 2048,
        "out_channels": 16,
        "pos_embed_max_size": 384,
        "dual_attention_layers": tuple(range(13)),
        "qk_norm": "rms_norm",
    },
    "pixart-sigma": {  # PixArt-alpha/PixArt-Sigma-XL-2-1024-MS, transformer/config.json
        "sample_size": 128,
        "patch_size": 2,
        "in_channels": 4,
        "out_channels": 8,
        "num_layers": 28,
        "num_attention_heads": 16,
        "attention_head_dim": 72,
        "cross_attention_dim": 1152,
        "caption_channels": 4096,
        "interpolation_scale": 2,
        "use_additional_conditions": False,
    },
    "flux-dev": {  # black-forest-labs/FLUX.1-dev, transformer/config.json
        "patch_size": 1,
        "in_channels": 64,
        "num_layers": 19,
        "num_single_layers": 38,
        "attention_head_dim": 128,
        "num_attention_heads": 24,
        "joint_attention_dim": 4096,
        "pooled_projection_dim": 768,
        "guidance_embeds": True,
        "axes_dims_rope": (16, 56, 56),
    },
}
AUTOENCODERS = {
    "sd35-medium": VAE_16 | {"scaling_factor": 1.5305, "shift_factor": 0.0609},
    "pixart-sigma": VAES["sdxl"],
    "flux-dev": VAE_16 | {"scaling_factor": 0.3611, "shift_factor": 0.1159},
}
SCHEDULES: dict[str, dict[str, Any]] = {
    "sd35-medium": {"_class_name": "FlowMatchEulerDiscreteScheduler", "shift": 3.0},
    "pixart-sigma": NOISE | {"_class_name": "DPMSolverMultistepScheduler", "beta_start": 0.0001, "beta_end": 0.02},
    "flux-dev": {"_class_name": "FlowMatchEulerDiscreteScheduler", "shift": 3.0, "use_dynamic_shifting": True},
}


def build_transformer(name: str, clip: PreTrainedTokenizerBase, t5: PreTrainedTokenizerBase) -> Backbone:
    """The whole model of a preset on the default device, untrained; the tokenizers say how long the texts are."""
    family = BY_PIPELINE[PIPELINES[name]]
    kind = backbone_class(family)
    t5s = [issubclass(encoder, T5EncoderModel) for encoder in kind.ENCODERS]
    clips = [CLIPTextConfig.from_dict(CLIP_G if number else CLIP_L) for number in range(len(t5s))]
    encoders = [
        encoder(T5Config(**T5_XXL) if is_t5 else config)
        for encoder, is_t5, config in zip(kind.ENCODERS, t5s, clips, strict=True)
    ]
    tokenizers = [t5 if is_t5 else clip for is_t5 in t5s]
    denoiser, vae = kind.DENOISER(**TRANSFORMERS[name]), AutoencoderKL(**AUTOENCODERS[name])
    return kind(family, family.texts, denoiser, vae, encoders, tokenizers, SCHEDULES[name])
