"""Small random models in hub layout: the real architectures with a handful of channels."""

from __future__ import annotations

import json
from pathlib import Path
from typing import get_args

import torch
from diffusers import (
    AutoencoderKL,
    EulerDiscreteScheduler,
    PixArtAlphaPipeline,
    PixArtTransformer2DModel,
    StableDiffusionPipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
)
from transformers import (
    BertTokenizerFast,
    BlipConfig,
    BlipForConditionalGeneration,
    CLIPConfig,
    CLIPImageProcessor,
    CLIPModel,
    CLIPSegConfig,
    CLIPSegForImageSegmentation,
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    CLIPVisionConfig,
    Dinov2Config,
    Dinov2Model,
    GitConfig,
    GitForCausalLM,
    LlamaConfig,
    LlamaTokenizer,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
    T5Config,
    T5EncoderModel,
    ViTConfig,
    ViTModel,
)

from comat.params import CaptionerKind, OneCaptioner
from comat.shapes.recipe.tokenizers import MAX_TOKENS, bert_tokenizer, clip_tokenizer

NOISE = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
PIXELS = {"image_mean": [0.5, 0.5, 0.5], "image_std": [0.5, 0.5, 0.5]}


def _text(kind: type, hidden: int):
    tokenizer = clip_tokenizer()
    return kind(
        CLIPTextConfig(
            vocab_size=len(tokenizer),
            hidden_size=hidden,
            intermediate_size=16,
            num_hidden_layers=2,
            num_attention_heads=2,
            max_position_embeddings=MAX_TOKENS,
            projection_dim=8,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )


def _unet(xl: bool, **changes: object) -> UNet2DConditionModel:
    extra: dict = {}
    if xl:
        extra = {
            "addition_embed_type": "text_time",
            "addition_time_embed_dim": 4,
            "projection_class_embeddings_input_dim": 8 + 6 * 4,
        }
    sizes = {
        "sample_size": 8,
        "in_channels": 4,
        "out_channels": 4,
        "layers_per_block": 1,
        "block_out_channels": (8, 16),
        "down_block_types": ("CrossAttnDownBlock2D",) * 2,
        "up_block_types": ("CrossAttnUpBlock2D",) * 2,
        "cross_attention_dim": 16 if xl else 8,
        "attention_head_dim": 2,
        "norm_num_groups": 4,
        "use_linear_projection": xl,
    }
    return UNet2DConditionModel(**sizes | extra | changes)


def _vae(levels: int = 2) -> AutoencoderKL:
    return AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * levels,
        up_block_types=("UpDecoderBlock2D",) * levels,
        block_out_channels=(8,) * levels,
        layers_per_block=1,
        latent_channels=4,
        norm_num_groups=4,
        sample_size=16,
        mid_block_add_attention=False,
        scaling_factor=0.5,
    )


def save_sdxl(folder: Path, scheduler: object = None) -> Path:
    """An SDXL pipeline: 16 px images, 8x8 latents; by the scheduler of the published model."""
    torch.manual_seed(0)
    tokenizer = clip_tokenizer()
    StableDiffusionXLPipeline(
        vae=_vae(),
        text_encoder=_text(CLIPTextModel, 8),
        text_encoder_2=_text(CLIPTextModelWithProjection, 8),
        tokenizer=tokenizer,
        tokenizer_2=tokenizer,
        unet=_unet(xl=True),
        scheduler=scheduler or EulerDiscreteScheduler(**NOISE, timestep_spacing="leading", steps_offset=1),
        add_watermarker=False,
    ).save_pretrained(folder)
    return folder


def save_sd15(folder: Path, scheduler: object = None, tokenizer: object = None, **unet: object) -> Path:
    """An SD1.5 pipeline of the same sizes, or with another UNet, tokenizer or scheduler one of its kin."""
    torch.manual_seed(0)
    StableDiffusionPipeline(
        vae=_vae(),
        text_encoder=_text(CLIPTextModel, 8),
        tokenizer=tokenizer or clip_tokenizer(),
        unet=_unet(xl=False, **unet),
        scheduler=scheduler or EulerDiscreteScheduler(**NOISE, timestep_spacing="leading", steps_offset=1),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    ).save_pretrained(folder)
    return folder


def save_pixart(folder: Path) -> Path:
    """PixArt-alpha, a transformer in the place of the UNet, of the same sizes."""
    torch.manual_seed(0)
    tokenizer = bert_tokenizer()
    text = {"vocab_size": len(tokenizer), "d_model": 8, "d_kv": 4, "d_ff": 8, "num_layers": 1, "num_heads": 2}
    transformer = PixArtTransformer2DModel(
        sample_size=32,  # one of the sizes that the pipeline knows: 256 px
        in_channels=4,
        out_channels=8,
        num_layers=1,
        num_attention_heads=2,
        attention_head_dim=4,
        cross_attention_dim=8,
        caption_channels=8,
        use_additional_conditions=False,
    )
    PixArtAlphaPipeline(
        tokenizer=tokenizer,
        text_encoder=T5EncoderModel(T5Config(**text)),
        vae=_vae(levels=4),
        transformer=transformer,
        scheduler=EulerDiscreteScheduler(**NOISE, timestep_spacing="leading", steps_offset=1),
    ).save_pretrained(folder)
    return folder


VISION = {
    "hidden_size": 16,
    "intermediate_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "image_size": 16,
    "patch_size": 4,
    "initializer_range": 0.02,
}
"""BLIP's own initializer_range is 1e-10: no image would change what is said of it."""


def blip_text(tokenizer: BertTokenizerFast, words: int, start: int) -> dict[str, int]:
    """The sizes of BLIP's text models; `start` is the token that a text begins with."""
    return {
        "vocab_size": words,
        "hidden_size": 16,
        "encoder_hidden_size": 16,
        "intermediate_size": 16,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "max_position_embeddings": 32,
        "bos_token_id": start,
        "eos_token_id": tokenizer.sep_token_id,
        "sep_token_id": tokenizer.sep_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }


def save_blip(folder: Path, **vision: object) -> Path:
    torch.manual_seed(1)
    tokenizer = bert_tokenizer()
    text = blip_text(tokenizer, len(tokenizer), tokenizer.cls_token_id)
    tower = VISION | {"num_hidden_layers": 1} | vision
    BlipForConditionalGeneration(BlipConfig(text_config=text, vision_config=tower)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    (folder / "preprocessor_config.json").write_text(json.dumps(PIXELS))
    return folder


def save_clipseg(folder: Path) -> Path:
    torch.manual_seed(2)
    tokenizer = clip_tokenizer()
    text = {
        "vocab_size": len(tokenizer),
        "hidden_size": 16,
        "intermediate_size": 16,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "max_position_embeddings": MAX_TOKENS,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }
    config = CLIPSegConfig(
        text_config=text,
        vision_config=VISION,
        projection_dim=8,
        reduce_dim=8,
        extract_layers=[0, 1],
        decoder_num_attention_heads=2,
        decoder_intermediate_size=16,
    )
    CLIPSegForImageSegmentation(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    (folder / "preprocessor_config.json").write_text(json.dumps(PIXELS | {"size": {"height": 16, "width": 16}}))
    return folder


def _save(model, folder: Path, tokenizer=None) -> Path:
    model.save_pretrained(folder)
    if tokenizer is not None:
        tokenizer.save_pretrained(folder)
    (folder / "preprocessor_config.json").write_text(json.dumps(PIXELS))
    return folder


def save_clip(folder: Path) -> Path:
    """CLIP of 16 px images; its tokenizer is CLIP's own kind."""
    torch.manual_seed(7)
    tokenizer = clip_tokenizer()
    text = _text(CLIPTextModel, 8).config.to_dict()
    config = CLIPConfig(text_config=text, vision_config=VISION | {"projection_dim": 8}, projection_dim=8)
    _save(CLIPModel(config), folder, tokenizer)
    sizes = {"size": {"shortest_edge": 16}, "crop_size": {"height": 16, "width": 16}}
    settings = PIXELS | sizes | {"image_processor_type": "CLIPImageProcessor"}
    (folder / "preprocessor_config.json").write_text(json.dumps(settings))
    return folder


def save_git(folder: Path) -> Path:
    torch.manual_seed(3)
    tokenizer = bert_tokenizer()
    text = {
        "vocab_size": len(tokenizer),
        "hidden_size": 16,
        "intermediate_size": 16,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "max_position_embeddings": 32,
        "bos_token_id": tokenizer.cls_token_id,
        "eos_token_id": tokenizer.sep_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }
    return _save(GitForCausalLM(GitConfig(vision_config=VISION, **text)), folder, tokenizer)


def llama_tokenizer() -> LlamaTokenizer:
    """Llama's tokenizer whose only pieces are characters and spaces; LLaVA adds the image and padding tokens."""
    special = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    pieces = [*special, "▁", *(chr(code) for code in range(33, 127))]
    tokenizer = LlamaTokenizer(vocab={piece: index for index, piece in enumerate(pieces)}, merges=[], legacy=False)
    tokenizer.add_special_tokens({"pad_token": "<pad>", "extra_special_tokens": ["<image>"]})
    return tokenizer


LLAVA_TEMPLATE = (
    "{% for m in messages %}{{ m['role'].upper() + ': ' }}"
    "{% for c in m['content'] | selectattr('type', 'equalto', 'image') %}{{ '<image>\n' }}{% endfor %}"
    "{% for c in m['content'] | selectattr('type', 'equalto', 'text') %}{{ c['text'] + ' ' }}{% endfor %}{% endfor %}"
    "{% if add_generation_prompt %}{{ 'ASSISTANT:' }}{% endif %}"
)
"""What LLaVA 1.5's own template comes to."""


def save_llava(folder: Path) -> Path:
    torch.manual_seed(4)
    tokenizer = llama_tokenizer()
    text = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=256,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    image = tokenizer.convert_tokens_to_ids("<image>")
    config = LlavaConfig(vision_config=CLIPVisionConfig(**VISION), text_config=text, image_token_index=image)
    _save(LlavaForConditionalGeneration(config), folder)
    return save_llava_processor(folder, tokenizer, VISION["image_size"], VISION["patch_size"])


def save_llava_processor(folder: Path, tokenizer: LlamaTokenizer, side: int, patch: int) -> Path:
    LlavaProcessor(
        image_processor=CLIPImageProcessor(size={"shortest_edge": side}, crop_size={"height": side, "width": side}),
        tokenizer=tokenizer,
        patch_size=patch,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=LLAVA_TEMPLATE,
    ).save_pretrained(folder)
    return folder


def one_captioner(kind: str, folder: Path | str, prefix: str = "", **more: object) -> OneCaptioner:
    """Parameters of a captioner; LLaVA is a vlm."""
    own = {"captioner": kind if kind in get_args(CaptionerKind) else "vlm", "caption_prefix": prefix}
    return OneCaptioner.model_validate({**own, "captioner_model": str(folder), "captioner_revision": None, **more})


def save_dino(folder: Path) -> Path:
    """DINO as the hub has it: a vision transformer without a pooler."""
    torch.manual_seed(5)
    return _save(ViTModel(ViTConfig(**VISION), add_pooling_layer=False), folder)


def save_dinov2(folder: Path) -> Path:
    torch.manual_seed(6)
    return _save(Dinov2Model(Dinov2Config(**VISION, mlp_ratio=1)), folder)
