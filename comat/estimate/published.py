"""Published models by their hub ids, as folders of configurations in hub layout: for estimates without a network.

What runs is read from the model itself; a model that is a folder, or in the hub's cache, is estimated by its own files.
"""

from __future__ import annotations

import contextlib
import json
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from diffusers import AutoencoderKL
from tokenizers import pre_tokenizers
from transformers import (
    BertConfig,
    BlipConfig,
    CLIPConfig,
    CLIPSegConfig,
    CLIPTokenizer,
    Dinov2Config,
    GroundingDinoConfig,
    PreTrainedConfig,
    PreTrainedModel,
    SamConfig,
    SwinConfig,
    T5Tokenizer,
    ViTConfig,
)

from comat.estimate.architectures import (
    CLIP_L,
    NOISE,
    VIT_L,
    build_captioner,
    build_text_encoders,
    build_unet,
    build_vae,
    meta,
)
from comat.estimate.transformer_models import PIPELINES, build_transformer
from comat.models.names import named_models, with_names
from comat.models.record import at_hand
from comat.params import Params

READ = 77
"""Tokens that CLIP reads."""
VIT_H = {"hidden_size": 1280, "mlp_dim": 5120, "num_hidden_layers": 32, "num_attention_heads": 16}
CLIP_H_VISION = {"hidden_size": 1280, "intermediate_size": 5120, "num_hidden_layers": 32, "num_attention_heads": 16}
CLIP_H_TEXT = {"hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 24, "num_attention_heads": 16}
NORMALISED = {"image_mean": [0.5] * 3, "image_std": [0.5] * 3}
SHORTEST = {"size": {"shortest_edge": 800, "longest_edge": 1333}, "image_processor_type": "GroundingDinoImageProcessor"}


@contextlib.contextmanager
def described(params: Params) -> Iterator[tuple[Params, list[str]]]:
    """The parameters with a folder of configurations for each published model that is not at hand; and their hub ids.

    The folders are there while the block runs.
    """
    there = {model.key for model in at_hand(params)}
    wanted = [m for m in named_models(params) if m.key not in there and m.name in PUBLISHED]
    with tempfile.TemporaryDirectory() as root:
        names = {}
        for number, model in enumerate(wanted):
            folder = Path(root) / f"{number}-{Path(model.name).name}"
            PUBLISHED[model.name](folder)
            names[model.key] = str(folder)
        yield with_names(params, names), list(dict.fromkeys(model.name for model in wanted))


def _pipeline(name: str) -> Callable[[Path], None]:
    def write(folder: Path) -> None:
        xl = name == "sdxl"
        texts = ["CLIPTextModel", "CLIPTextModelWithProjection"][: 1 + xl]
        parts = {"unet": ["diffusers", "UNet2DConditionModel"], "vae": ["diffusers", "AutoencoderKL"]}
        for number, (kind, encoder) in enumerate(zip(texts, meta(build_text_encoders, name), strict=True)):
            ending = f"_{number + 1}" if number else ""
            encoder.config.architectures = [kind]
            encoder.config.save_pretrained(folder / f"text_encoder{ending}")
            stub_tokenizer().save_pretrained(folder / f"tokenizer{ending}")
            parts |= {f"text_encoder{ending}": ["transformers", kind]}
            parts |= {f"tokenizer{ending}": ["transformers", "CLIPTokenizer"]}
        meta(build_unet, name).save_config(folder / "unet")
        meta(build_vae, name).save_config(folder / "vae")
        pipeline = {"_class_name": "StableDiffusionXLPipeline" if xl else "StableDiffusionPipeline", **parts}
        _json(folder / "model_index.json", {**pipeline, "force_zeros_for_empty_prompt": xl})
        _json(folder / "scheduler/scheduler_config.json", {"_class_name": "DDIMScheduler", **NOISE})

    return write


def _transformer(name: str) -> Callable[[Path], None]:
    """Of `comat.estimate.transformer_models`; a part that some pipelines leave out is there."""

    def write(folder: Path) -> None:
        t5 = T5Tokenizer(vocab=None)
        model = meta(build_transformer, name, stub_tokenizer(), t5)
        kind = type(model.denoiser).__name__
        parts = {"transformer": ["diffusers", kind], "vae": ["diffusers", "AutoencoderKL"]}
        for text, encoder, tokenizer in zip(model.texts, model.text_encoders, model.tokenizers, strict=True):
            encoder.config.architectures = [type(encoder).__name__]
            encoder.config.save_pretrained(folder / text.encoder)
            tokenizer.save_pretrained(folder / text.tokenizer)
            parts[text.encoder] = ["transformers", type(encoder).__name__]
            parts[text.tokenizer] = ["transformers", type(tokenizer).__name__]
        model.denoiser.save_config(folder / "transformer")
        model.vae.save_config(folder / "vae")
        _json(folder / "model_index.json", {"_class_name": PIPELINES[name], **parts})
        _json(folder / "scheduler/scheduler_config.json", model.scheduler_config)

    return write


def _autoencoder(folder: Path) -> None:
    vae: AutoencoderKL = meta(build_vae, "sdxl")
    vae.save_config(folder)


def stub_tokenizer() -> CLIPTokenizer:
    """One of CLIP's kind that knows no words: only the length of what it reads matters to shapes."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    ends = ("<|startoftext|>", "<|endoftext|>")
    vocab = {symbol: n for n, symbol in enumerate([*letters, *(f"{letter}</w>" for letter in letters), *ends])}
    return CLIPTokenizer(vocab=vocab, merges=[], model_max_length=READ, pad_token=ends[1])


def _captioner(name: str) -> Callable[[Path], None]:
    def write(folder: Path) -> None:
        captioner = meta(build_captioner, name)
        assert isinstance(captioner, PreTrainedModel)
        captioner.config.save_pretrained(folder)

    return write


def _of(build: Callable[[], PreTrainedConfig], processor: dict | None = None) -> Callable[[Path], None]:
    def write(folder: Path) -> None:
        build().save_pretrained(folder)
        _json(folder / "preprocessor_config.json", processor or NORMALISED)

    return write


def _json(path: Path, values: dict) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(values), encoding="utf-8")


def _sam() -> SamConfig:
    return SamConfig(vision_config={**VIT_H, "global_attn_indexes": [7, 15, 23, 31]})


def _swin_b() -> GroundingDinoConfig:
    swin = SwinConfig(embed_dim=128, depths=[2, 2, 18, 2], num_heads=[4, 8, 16, 32], window_size=12, image_size=384)
    swin.out_indices = [2, 3, 4]
    return GroundingDinoConfig(backbone_config=swin)


def _clip(text: dict, vision: dict, width: int) -> CLIPConfig:
    return CLIPConfig(text_config=text, vision_config={**vision, "patch_size": 14}, projection_dim=width)


PUBLISHED: dict[str, Callable[[Path], None]] = {
    "stable-diffusion-v1-5/stable-diffusion-v1-5": _pipeline("sd15"),
    "stabilityai/stable-diffusion-xl-base-1.0": _pipeline("sdxl"),
    "stabilityai/stable-diffusion-3.5-medium": _transformer("sd35-medium"),
    "PixArt-alpha/PixArt-Sigma-XL-2-1024-MS": _transformer("pixart-sigma"),
    "black-forest-labs/FLUX.1-dev": _transformer("flux-dev"),
    "madebyollin/sdxl-vae-fp16-fix": _autoencoder,
    "Salesforce/blip-image-captioning-large": _captioner("blip"),
    "microsoft/git-large-coco": _captioner("git"),
    "llava-hf/llava-1.5-7b-hf": _captioner("llava"),
    "IDEA-Research/grounding-dino-tiny": _of(GroundingDinoConfig, SHORTEST),
    "IDEA-Research/grounding-dino-base": _of(_swin_b, SHORTEST),
    "facebook/sam-vit-huge": _of(_sam),
    "facebook/sam-vit-base": _of(SamConfig),
    "CIDAS/clipseg-rd64-refined": _of(lambda: CLIPSegConfig(use_complex_transposed_convolution=True)),
    "google-bert/bert-base-uncased": _of(BertConfig),
    "bert-base-uncased": _of(BertConfig),
    "facebook/dinov2-base": _of(lambda: Dinov2Config(image_size=518, patch_size=14)),
    "facebook/dino-vitb16": _of(ViTConfig),
    "openai/clip-vit-base-patch16": _of(lambda: CLIPConfig(vision_config={"patch_size": 16})),
    "openai/clip-vit-large-patch14": _of(lambda: _clip(CLIP_L, VIT_L, 768)),
    "yuvalkirstain/PickScore_v1": _of(lambda: _clip(CLIP_H_TEXT, CLIP_H_VISION, 1024)),
    "Salesforce/blip-vqa-capfilt-large": _of(BlipConfig),
}
"""Hub id → what writes its configurations into a folder; the defaults of transformers are those of several of them."""
