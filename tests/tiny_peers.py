"""Small random pipelines of families that are peers alone: Sana, AuraFlow, Lumina 2."""

from __future__ import annotations

from pathlib import Path

import torch
from diffusers import (
    AuraFlowPipeline,
    AuraFlowTransformer2DModel,
    AutoencoderDC,
    FlowMatchEulerDiscreteScheduler,
    Lumina2Pipeline,
    Lumina2Transformer2DModel,
    SanaPipeline,
    SanaTransformer2DModel,
)
from transformers import (
    Gemma2Config,
    Gemma2Model,
    UMT5Config,
    UMT5EncoderModel,
)

from tests.tiny_families import _vae, t5_tokenizer
from tests.tiny_models import _vae as of_levels
from tests.tiny_models import llama_tokenizer

NAMES = ("sana", "auraflow", "lumina2")


def _gemma(width: int) -> Gemma2Model:
    config = Gemma2Config(
        vocab_size=len(llama_tokenizer()),
        hidden_size=width,
        intermediate_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=2,
        head_dim=8,
        max_position_embeddings=512,
    )
    return Gemma2Model(config)


def save_sana(folder: Path) -> Path:
    """Its sample size is one that the pipeline has sizes of its own for: 1024 px."""
    torch.manual_seed(0)
    vae = AutoencoderDC(
        latent_channels=4,
        attention_head_dim=2,
        encoder_block_types=("ResBlock", "EfficientViTBlock"),
        decoder_block_types=("ResBlock", "EfficientViTBlock"),
        encoder_block_out_channels=(8, 8),
        decoder_block_out_channels=(8, 8),
        encoder_qkv_multiscales=((), (5,)),
        decoder_qkv_multiscales=((), (5,)),
        encoder_layers_per_block=(1, 1),
        decoder_layers_per_block=[1, 1],
        downsample_block_type="conv",
        upsample_block_type="interpolate",
        decoder_norm_types="rms_norm",
        decoder_act_fns="silu",
        scaling_factor=0.41407,
    )
    transformer = SanaTransformer2DModel(
        patch_size=1,
        in_channels=4,
        out_channels=4,
        num_layers=1,
        num_attention_heads=2,
        attention_head_dim=4,
        num_cross_attention_heads=2,
        cross_attention_head_dim=4,
        cross_attention_dim=8,
        caption_channels=16,
        sample_size=32,
    )
    parts = {"text_encoder": _gemma(16), "tokenizer": llama_tokenizer(), "vae": vae, "transformer": transformer}
    SanaPipeline(**parts, scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0)).save_pretrained(folder)
    return folder


def save_auraflow(folder: Path) -> Path:
    torch.manual_seed(0)
    tokenizer = t5_tokenizer()
    text = {"vocab_size": len(tokenizer), "d_model": 16, "d_kv": 8, "d_ff": 16, "num_layers": 1, "num_heads": 2}
    transformer = AuraFlowTransformer2DModel(
        sample_size=8,
        patch_size=2,
        in_channels=4,
        num_mmdit_layers=1,
        num_single_dit_layers=1,
        attention_head_dim=8,
        num_attention_heads=2,
        joint_attention_dim=16,
        caption_projection_dim=16,
        out_channels=4,
        pos_embed_max_size=1024,
    )
    AuraFlowPipeline(
        tokenizer=tokenizer,
        text_encoder=UMT5EncoderModel(UMT5Config(**text)),
        vae=_vae(4),
        transformer=transformer,
        scheduler=FlowMatchEulerDiscreteScheduler(),
    ).save_pretrained(folder)
    return folder


def save_lumina2(folder: Path) -> Path:
    torch.manual_seed(0)
    transformer = Lumina2Transformer2DModel(
        sample_size=8,
        patch_size=2,
        in_channels=4,
        hidden_size=24,
        num_layers=1,
        num_refiner_layers=1,
        num_attention_heads=3,
        num_kv_heads=1,
        multiple_of=2,
        axes_dim_rope=(4, 2, 2),
        axes_lens=(512, 64, 64),
        cap_feat_dim=16,
    )
    vae = of_levels(4)  # the pipeline takes eight for granted
    vae.register_to_config(shift_factor=0.1)
    parts = {"text_encoder": _gemma(16), "tokenizer": llama_tokenizer(), "vae": vae, "transformer": transformer}
    Lumina2Pipeline(**parts, scheduler=FlowMatchEulerDiscreteScheduler(shift=6.0)).save_pretrained(folder)
    return folder
