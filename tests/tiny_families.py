"""Small random base models in hub layout, with a handful of channels and tokenizers of a few pieces."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path

import torch
from diffusers import (
    AutoencoderDC,
    AutoencoderKL,
    AutoencoderKLQwenImage,
    DDIMScheduler,
    DPMSolverMultistepScheduler,
    EulerAncestralDiscreteScheduler,
    FlowMatchEulerDiscreteScheduler,
    FluxPipeline,
    FluxTransformer2DModel,
    PixArtAlphaPipeline,
    PixArtSigmaPipeline,
    PixArtTransformer2DModel,
    QwenImagePipeline,
    QwenImageTransformer2DModel,
    SanaPipeline,
    SanaTransformer2DModel,
    SD3Transformer2DModel,
    StableDiffusion3Pipeline,
    ZImagePipeline,
    ZImageTransformer2DModel,
)
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers
from transformers import (
    CLIPTextModel,
    CLIPTextModelWithProjection,
    Gemma2Config,
    Gemma2Model,
    GemmaTokenizer,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2Tokenizer,
    Qwen3Config,
    Qwen3Model,
    T5Config,
    T5EncoderModel,
    T5Tokenizer,
)

from comat.diffusion.backbones import load_base
from comat.diffusion.backbones.base import Backbone
from comat.diffusion.backbones.qwen_image import ASKED
from comat.shapes.recipe.tokenizers import clip_tokenizer
from tests.tiny_models import NOISE, _text, save_sd15, save_sdxl

TEXTS = ("a red ball and a blue cube", "two green stars", "a wooden table, three cats on it", "The dog's pink ring")
UNETS = ("sd15", "sd2", "sdxl", "playground_v2")
NAMES = (
    *UNETS,
    *("sd3", "sd3_without_t5", "pixart_alpha", "pixart_sigma", "flux_dev", "flux_schnell"),
    *("sana", "sana_euler", "qwen_image", "z_image"),
)
TURNS = ("<|im_start|>", "<|im_end|>")
CHAT = (
    "{% for turn in messages %}{{ '<|im_start|>' + turn['role'] + '\\n' + turn['content'] + '<|im_end|>\\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
"""As Qwen3's, where it may think."""


@cache
def _pieces() -> list[tuple[str, float]]:
    trained = Tokenizer(models.Unigram())
    trained.normalizer = normalizers.NFKC()
    trained.pre_tokenizer = pre_tokenizers.Metaspace()
    alphabet = [chr(code) for code in range(33, 127)]
    special = ["<pad>", "</s>", "<unk>"]
    trainer = trainers.UnigramTrainer(
        vocab_size=200, special_tokens=special, unk_token="<unk>", initial_alphabet=alphabet, show_progress=False
    )
    trained.train_from_iterator(TEXTS * 10, trainer)
    scores = {token: -float(rank) for token, rank in trained.get_vocab().items()}
    return [(token, scores[token]) for token in sorted(scores, key=lambda token: -scores[token])]


def t5_tokenizer() -> T5Tokenizer:
    """A sentencepiece-like tokenizer of a few pieces and every ASCII sign."""
    return T5Tokenizer(vocab=_pieces(), extra_ids=0)


def _t5(width: int = 32) -> T5EncoderModel:
    return T5EncoderModel(
        T5Config(vocab_size=len(t5_tokenizer()), d_model=width, d_kv=8, d_ff=16, num_layers=1, num_heads=2)
    )


def _vae(channels: int, **scaling: float) -> AutoencoderKL:
    return AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        block_out_channels=(8, 8),
        layers_per_block=1,
        latent_channels=channels,
        norm_num_groups=4,
        sample_size=16,
        mid_block_add_attention=False,
        use_quant_conv=False,
        use_post_quant_conv=False,
        **{"scaling_factor": 1.5, "shift_factor": 0.06, **scaling},
    )


def save_sd2(folder: Path) -> Path:
    """Stable Diffusion 2's kind: heads by width, "!" for padding; velocity, and a schedule that ends without signal."""
    tokenizer = clip_tokenizer()
    tokenizer.pad_token = "!"
    noise = {**NOISE, "prediction_type": "v_prediction", "rescale_betas_zero_snr": True, "steps_offset": 1}
    return save_sd15(
        folder,
        DDIMScheduler(**noise, timestep_spacing="trailing", clip_sample=False, set_alpha_to_one=False),
        tokenizer,
        attention_head_dim=(2, 4),
        use_linear_projection=True,
        upcast_attention=True,
    )


def save_playground_v2(folder: Path) -> Path:
    """An SDXL whose sampler draws noise at each step, as the scheduler of Playground v2 does."""
    return save_sdxl(folder, EulerAncestralDiscreteScheduler(**NOISE, timestep_spacing="leading", steps_offset=1))


def save_sd3(folder: Path, t5: bool = True, later: bool = True, **schedule: object) -> Path:
    """SD3.5's kind: dual attention in the first block, norms of queries and keys; or SD3's, without either."""
    torch.manual_seed(0)
    tokenizer = clip_tokenizer()
    transformer = SD3Transformer2DModel(
        sample_size=16,
        patch_size=2,
        in_channels=16,
        num_layers=3,
        attention_head_dim=8,
        num_attention_heads=2,
        caption_projection_dim=16,
        joint_attention_dim=32,
        pooled_projection_dim=16,
        out_channels=16,
        pos_embed_max_size=16,
        dual_attention_layers=(0,) if later else (),
        qk_norm="rms_norm" if later else None,
    )
    StableDiffusion3Pipeline(
        transformer=transformer,
        scheduler=FlowMatchEulerDiscreteScheduler(**{"shift": 3.0, **schedule}),
        vae=_vae(16),
        text_encoder=_text(CLIPTextModelWithProjection, 8),
        tokenizer=tokenizer,
        text_encoder_2=_text(CLIPTextModelWithProjection, 8),
        tokenizer_2=tokenizer,
        text_encoder_3=_t5() if t5 else None,
        tokenizer_3=t5_tokenizer() if t5 else None,
    ).save_pretrained(folder)
    return folder


def save_sd3_without_t5(folder: Path) -> Path:
    return save_sd3(folder, t5=False, later=False, use_dynamic_shifting=True)


def _pixart(folder: Path, kind: type, conditions: bool) -> Path:
    torch.manual_seed(0)
    transformer = PixArtTransformer2DModel(
        sample_size=128 if conditions else 16,  # by which the stock pipeline says the size, or not
        in_channels=4,
        out_channels=8,
        patch_size=2,
        num_layers=2,
        num_attention_heads=2,
        attention_head_dim=12,
        cross_attention_dim=24,
        caption_channels=32,
        use_additional_conditions=conditions,
    )
    kind(
        tokenizer=t5_tokenizer(),
        text_encoder=_t5(),
        vae=_vae(4, shift_factor=None),
        transformer=transformer,
        scheduler=DPMSolverMultistepScheduler(beta_start=0.0001, beta_end=0.02, beta_schedule="linear"),
    ).save_pretrained(folder)
    return folder


def save_pixart_alpha(folder: Path) -> Path:
    return _pixart(folder, PixArtAlphaPipeline, conditions=True)


def save_pixart_sigma(folder: Path) -> Path:
    return _pixart(folder, PixArtSigmaPipeline, conditions=False)


def _flux(folder: Path, guidance: bool, **schedule: object) -> Path:
    torch.manual_seed(0)
    tokenizer = clip_tokenizer()
    transformer = FluxTransformer2DModel(
        patch_size=1,
        in_channels=64,
        num_layers=2,
        num_single_layers=2,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=32,
        pooled_projection_dim=8,
        guidance_embeds=guidance,
        axes_dims_rope=(4, 4, 8),
    )
    FluxPipeline(
        transformer=transformer,
        scheduler=FlowMatchEulerDiscreteScheduler(**schedule),
        vae=_vae(16),
        text_encoder=_text(CLIPTextModel, 8),
        tokenizer=tokenizer,
        text_encoder_2=_t5(),
        tokenizer_2=t5_tokenizer(),
    ).save_pretrained(folder)
    return folder


def save_flux_dev(folder: Path) -> Path:
    return _flux(folder, guidance=True, use_dynamic_shifting=True, shift=3.0)


def save_flux_schnell(folder: Path) -> Path:
    return _flux(folder, guidance=False, shift=1.0)


@cache
def _merged() -> tuple[dict[str, int], list[tuple[str, str]]]:
    """A vocabulary and merges of pieces that begin with a space, as sentencepiece's do."""
    trained = Tokenizer(models.BPE(unk_token="<unk>"))
    trained.normalizer = normalizers.Replace(" ", "▁")
    trained.pre_tokenizer = pre_tokenizers.Split("▁", "merged_with_next")
    trainer = trainers.BpeTrainer(
        vocab_size=240,
        special_tokens=["<pad>", "<eos>", "<bos>", "<unk>", "<mask>"],
        initial_alphabet=[*(chr(code) for code in range(33, 127)), "▁", "\n"],
        show_progress=False,
    )
    trained.train_from_iterator([*TEXTS, "User Prompt: Given a user prompt, sizes, colors and textures"] * 10, trainer)
    model = json.loads(trained.to_str())["model"]
    return model["vocab"], [tuple(pair) for pair in model["merges"]]


def gemma_tokenizer() -> GemmaTokenizer:
    vocab, merges = _merged()
    return GemmaTokenizer(vocab=vocab, merges=merges, add_bos_token=True)


def save_sana(folder: Path, scheduler: object = None) -> Path:
    """An autoencoder of two levels, one with its linear attention; by the scheduler of the published model."""
    torch.manual_seed(0)
    tokenizer = gemma_tokenizer()
    transformer = SanaTransformer2DModel(
        in_channels=8,
        out_channels=8,
        num_attention_heads=2,
        attention_head_dim=16,
        num_layers=2,
        num_cross_attention_heads=2,
        cross_attention_head_dim=16,
        cross_attention_dim=32,
        caption_channels=16,
        sample_size=8,
        patch_size=1,
    )
    text = Gemma2Config(
        vocab_size=len(tokenizer),
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=8,
    )
    vae = AutoencoderDC(
        latent_channels=8,
        attention_head_dim=4,
        encoder_block_types=("ResBlock", "EfficientViTBlock"),
        decoder_block_types=("ResBlock", "EfficientViTBlock"),
        encoder_block_out_channels=(8, 8),
        decoder_block_out_channels=(8, 8),
        encoder_layers_per_block=(1, 1),
        decoder_layers_per_block=(1, 1),
        encoder_qkv_multiscales=((), (5,)),
        decoder_qkv_multiscales=((), (5,)),
        scaling_factor=0.41407,
    )
    flow = {"use_flow_sigmas": True, "prediction_type": "flow_prediction", "flow_shift": 3.0}
    SanaPipeline(
        tokenizer=tokenizer,
        text_encoder=Gemma2Model(text),
        vae=vae,
        transformer=transformer,
        scheduler=scheduler or DPMSolverMultistepScheduler(**flow),
    ).save_pretrained(folder)
    return folder


def save_sana_euler(folder: Path) -> Path:
    return save_sana(folder, FlowMatchEulerDiscreteScheduler(shift=3.0))


@cache
def _byte_pairs() -> tuple[dict[str, int], list[tuple[str, str]]]:
    """A vocabulary and merges in which every word of Qwen-Image's instruction is one token, as in its own."""
    trained = Tokenizer(models.BPE())
    trained.pre_tokenizer = Qwen2Tokenizer().backend_tokenizer.pre_tokenizer
    trainer = trainers.BpeTrainer(
        vocab_size=600,
        special_tokens=["<|endoftext|>"],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    parts = ASKED.replace("<|im_end|>", "<|im_start|>").split("<|im_start|>")
    trained.train_from_iterator([*parts, "assistant\n", TEXTS[0]], trainer)
    model = json.loads(trained.to_str())["model"]
    return model["vocab"], [tuple(pair) for pair in model["merges"]]


def qwen_tokenizer() -> Qwen2Tokenizer:
    vocab, merges = _byte_pairs()
    tokenizer = Qwen2Tokenizer(vocab=vocab, merges=merges)
    tokenizer.add_special_tokens({"additional_special_tokens": list(TURNS)})
    tokenizer.chat_template = CHAT
    return tokenizer


def _language(words: int) -> dict:
    return {
        "vocab_size": words,
        "hidden_size": 32,
        "intermediate_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
    }


def save_qwen_image(folder: Path) -> Path:
    """An autoencoder of two levels with a mean and deviation for each channel; a schedule that ends above zero."""
    torch.manual_seed(0)
    tokenizer = qwen_tokenizer()
    rope = {"rope_type": "default", "mrope_section": [4, 2, 2], "rope_theta": 10000.0}
    eyes = {"depth": 1, "num_heads": 2, "hidden_size": 16, "intermediate_size": 16, "out_hidden_size": 32}
    transformer = QwenImageTransformer2DModel(
        in_channels=64,
        out_channels=16,
        num_layers=2,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=32,
        axes_dims_rope=(4, 4, 8),
    )
    vae = AutoencoderKLQwenImage(
        base_dim=8, z_dim=16, dim_mult=[1, 1], num_res_blocks=1, temperal_downsample=[False], attn_scales=[]
    )
    language = _language(len(tokenizer)) | {"rope_parameters": rope}
    schedule = {"base_shift": 0.5, "max_shift": 0.9, "max_image_seq_len": 8192, "shift_terminal": 0.02}
    QwenImagePipeline(
        transformer=transformer,
        scheduler=FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True, **schedule),
        vae=vae,
        text_encoder=Qwen2_5_VLForConditionalGeneration(Qwen2_5_VLConfig(text_config=language, vision_config=eyes)),
        tokenizer=tokenizer,
    ).save_pretrained(folder)
    return folder


def save_z_image(folder: Path) -> Path:
    torch.manual_seed(0)
    tokenizer = qwen_tokenizer()
    transformer = ZImageTransformer2DModel(
        in_channels=16,
        dim=32,
        n_layers=2,
        n_refiner_layers=1,
        n_heads=2,
        n_kv_heads=2,
        cap_feat_dim=32,
        axes_dims=[4, 4, 8],
        axes_lens=[640, 64, 64],
    )
    with torch.no_grad():  # zero in a new one, where a token that fills up would not differ from none
        for name, weight in transformer.named_parameters():
            if name.endswith("pad_token"):
                weight.normal_()
    ZImagePipeline(
        transformer=transformer,
        scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0),
        vae=_vae(16),
        text_encoder=Qwen3Model(Qwen3Config(**_language(len(tokenizer)), head_dim=16)),
        tokenizer=tokenizer,
    ).save_pretrained(folder)
    return folder


@cache
def loaded(folder: Path) -> Backbone:
    """A twin that was loaded once, for tests that leave it as it is."""
    return load_base(str(folder))
