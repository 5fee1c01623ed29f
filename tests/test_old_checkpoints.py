"""Checkpoints as older libraries wrote them, and as the hub still holds most of them: they load to the last bit."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL
from safetensors.torch import load_file, save_file

from comat.captioners.load import load_captioner
from comat.diffusion.backbones import load_base
from comat.diffusion.backbones.autoencoder import encode_images, load_vae
from comat.entities.tokens import tokens_of
from comat.judges.clip import Clip
from comat.models.preprocess import image_processor
from comat.segmenters.clipseg import ClipSeg
from comat.tokenizers import load_tokenizers, too_long, words_of
from tests.tiny_models import one_captioner

CPU, FP32 = torch.device("cpu"), torch.float32
PROMPTS = ["a red ball and a blue cube", "wow!!! two stars!"]


def renamed(path: Path, change: Callable[[str], str], extra: dict[str, torch.Tensor] | None = None) -> None:
    """Write the weights of a file under other names, with tensors that no model has today."""
    weights = load_file(path)
    names = {name: change(name) for name in weights}
    assert any(old != new for old, new in names.items())
    save_file({names[name]: value for name, value in weights.items()} | (extra or {}), path, {"format": "pt"})


def edit(path: Path, **changes: object) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


@pytest.fixture
def old(tiny: Path, tmp_path: Path) -> Callable[[str], Path]:
    """A copy of a tiny model to age."""

    def copy(name: str) -> Path:
        return Path(shutil.copytree(tiny / name, tmp_path / name))

    return copy


def test_text_encoders_of_transformers_4(tiny: Path, old) -> None:
    """Every weight of a CLIPTextModel stood below `text_model.`, and the positions were among them."""
    folder, positions = old("sdxl"), {"text_model.embeddings.position_ids": torch.arange(24)[None]}
    renamed(folder / "text_encoder/model.safetensors", lambda name: f"text_model.{name}", positions)
    found, expected = (load_base(str(one)).encode_prompts(PROMPTS) for one in (folder, tiny / "sdxl"))
    assert torch.equal(found.tokens, expected.tokens) and torch.equal(found.pooled, expected.pooled)


def test_a_projecting_text_encoder_with_positions_among_its_weights(tiny: Path, old) -> None:
    folder = old("sdxl")
    path = folder / "text_encoder_2/model.safetensors"
    save_file(load_file(path) | {"text_model.embeddings.position_ids": torch.arange(24)[None]}, path, {"format": "pt"})
    found, expected = (load_base(str(one)).encode_prompts(PROMPTS) for one in (folder, tiny / "sdxl"))
    assert torch.equal(found.pooled, expected.pooled)


def test_the_vision_tower_of_an_older_llava(tiny: Path, old) -> None:
    """Its language model stood beside the vision tower, whose weights had a prefix of their own."""
    folder = old("llava")
    renamed(folder / "model.safetensors", lambda name: name.replace("vision_tower.", "vision_tower.vision_model."))
    check_captioner("vlm", folder, tiny / "llava")


def test_a_llava_of_today(tiny: Path, old) -> None:
    folder = old("llava")
    names = {
        "language_model.lm_head": "lm_head",
        "language_model.model": "model.language_model",
        "vision_tower": "model.vision_tower",
        "multi_modal_projector": "model.multi_modal_projector",
    }

    def today(name: str) -> str:
        start = next(start for start in names if name.startswith(start))
        return names[start] + name.removeprefix(start)

    renamed(folder / "model.safetensors", today)
    check_captioner("vlm", folder, tiny / "llava")


def check_captioner(kind: str, folder: Path, like: Path) -> None:
    images = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    found, expected = (
        load_captioner(one_captioner(kind, one), CPU, FP32).log_likelihood(images, PROMPTS)[0] for one in (folder, like)
    )
    assert torch.equal(found, expected)


@pytest.mark.parametrize("kind", ["blip", "git"])
def test_captioners_whose_norms_are_gamma_and_beta(tiny: Path, old, kind: str) -> None:
    folder = old(kind)

    def aged(name: str) -> str:
        return name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta")

    renamed(folder / "model.safetensors", aged)
    check_captioner(kind, folder, tiny / kind)


def test_clip_and_clipseg_with_positions_among_the_weights(tiny: Path, old) -> None:
    picture = np.random.default_rng(0).integers(0, 255, (16, 16, 3), dtype=np.uint8)
    for name, prefix in (("clip", ""), ("clipseg", "clip.")):
        path = old(name) / "model.safetensors"
        positions = {f"{prefix}text_model.embeddings.position_ids": torch.arange(24)[None]}
        save_file(load_file(path) | positions, path, {"format": "pt"})
    root = path.parent.parent
    clips = [Clip(str(one / "clip"), None, CPU) for one in (root, tiny)]
    assert torch.equal(*(one.images([picture]) for one in clips)) and torch.equal(
        *(one.texts(PROMPTS) for one in clips)
    )
    masks = [ClipSeg(str(one / "clipseg"), None, 0.5, CPU, FP32) for one in (root, tiny)]
    assert torch.equal(*(one.masks(torch.full((1, 3, 16, 16), 0.3), [["ball"]])[0] for one in masks))


OLD_ATTENTION = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}


def test_an_autoencoder_with_the_attention_of_old_diffusers(tmp_path: Path) -> None:
    """Stable Diffusion 1.5's own, and the fine-tuned ones of 2022."""
    torch.manual_seed(0)
    blocks = {"down_block_types": ("DownEncoderBlock2D",) * 2, "up_block_types": ("UpDecoderBlock2D",) * 2}
    vae = AutoencoderKL(**blocks, block_out_channels=(8, 8), norm_num_groups=4, sample_size=16, scaling_factor=0.5)
    for name in ("new", "old"):
        vae.save_pretrained(tmp_path / name)

    def aged(name: str) -> str:
        for new, old in OLD_ATTENTION.items():
            name = re.sub(rf"(mid_block\.attentions\.0)\.{re.escape(new)}\.", rf"\1.{old}.", name)
        return name

    renamed(tmp_path / "old/diffusion_pytorch_model.safetensors", aged)
    images = torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    found = [encode_images(load_vae("", None, str(tmp_path / n), None, "fp32", "cpu"), images) for n in ("old", "new")]
    assert torch.equal(*found)


def slow_tokenizer(folder: Path, pad: str) -> None:
    """As transformers 4 saved CLIP's: words and merges in files of their own, special tokens in a third."""
    model = json.loads((folder / "tokenizer.json").read_text())["model"]
    (folder / "vocab.json").write_text(json.dumps(model["vocab"]))
    merges = [merge if isinstance(merge, str) else " ".join(merge) for merge in model["merges"]]
    (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *merges, ""]))
    (folder / "tokenizer.json").unlink()
    whole = {"lstrip": False, "normalized": True, "rstrip": False, "single_word": False}
    special = {name: {"content": "<|endoftext|>", **whole} for name in ("eos_token", "unk_token")}
    special["bos_token"] = {"content": "<|startoftext|>", **whole}
    (folder / "special_tokens_map.json").write_text(json.dumps(special | {"pad_token": pad}))
    typed = {name: {"__type": "AddedToken", **value} for name, value in special.items()}
    values = {"add_prefix_space": False, "do_lower_case": True, "errors": "replace", "model_max_length": 24}
    values |= {"tokenizer_class": "CLIPTokenizer", "name_or_path": "./x", "pad_token": pad, **typed}
    (folder / "tokenizer_config.json").write_text(json.dumps(values))


def test_slow_tokenizers_padded_with_an_exclamation_mark(tiny: Path, old) -> None:
    """As SDXL's second: `!` is padding, and so one token wherever a prompt says it, as in the stock pipeline."""
    folder = old("sdxl")
    for name, pad in (("tokenizer", "<|endoftext|>"), ("tokenizer_2", "!")):
        slow_tokenizer(folder / name, pad)
    new, aged = load_tokenizers(str(tiny / "sdxl")), load_tokenizers(str(folder))
    mark = new[0].get_vocab()["!"]  # what ends a word is another
    for prompt in PROMPTS:
        expected = new[0](prompt).input_ids
        marked = [mark if word == "!" else id for id, word in zip(expected, words_of(new[0], prompt), strict=True)]
        assert [one(prompt).input_ids for one in aged] == [expected, marked]
        first, second = (one(prompt, padding="max_length").input_ids for one in aged)
        assert first == expected + [new[0].eos_token_id] * (24 - len(expected))
        assert second == marked + [mark] * (24 - len(expected))
        assert words_of(aged[1], prompt) == words_of(new[1], prompt)
        assert tokens_of(aged[1], [prompt]) == tokens_of(new[1], [prompt])
    assert too_long(aged, ["a " * 40, "a!"]) == [True, False]
    # CLIP's text encoder looks back only: what stands before the padding is the same.
    found, expected = (load_base(str(one)).encode_prompts(PROMPTS[:1]) for one in (folder, tiny / "sdxl"))
    assert torch.equal(found.pooled, expected.pooled)
    assert torch.allclose(found.tokens[:, :9], expected.tokens[:, :9])
    assert not torch.allclose(found.tokens[:, -1], expected.tokens[:, -1])


PROCESSOR = {"processor_class": "LlavaProcessor"}
"""Which a vlm is told by; no other looks at it."""


def as_one_file(folder: Path) -> None:
    """As transformers 5 saves processors: everything in one file."""
    config = json.loads((folder / "preprocessor_config.json").read_text())
    (folder / "preprocessor_config.json").unlink()
    (folder / "processor_config.json").write_text(json.dumps({"image_processor": config, **PROCESSOR}))


def as_two_files(folder: Path) -> None:
    """As transformers 4.5x saved them: the processor's own file beside that of the images."""
    (folder / "processor_config.json").write_text(json.dumps(PROCESSOR))


def as_a_feature_extractor(folder: Path) -> None:
    """As CLIP's first were saved: sides as plain numbers, under the name that the class had."""
    config = json.loads((folder / "preprocessor_config.json").read_text())
    config |= {"feature_extractor_type": "CLIPFeatureExtractor", "size": 16, "crop_size": 16, "resample": 3}
    config.pop("image_processor_type", None)
    (folder / "preprocessor_config.json").write_text(json.dumps(config))


@pytest.mark.parametrize("aged", [as_one_file, as_two_files, as_a_feature_extractor])
def test_image_processors_in_one_file_or_two(tiny: Path, old, aged: Callable[[Path], None]) -> None:
    folder = old("clip")
    aged(folder)
    picture = [torch.rand(3, 40, 30, generator=torch.Generator().manual_seed(0))]
    found, expected = (
        image_processor(str(one), None)(picture, do_rescale=False, return_tensors="pt").pixel_values
        for one in (folder, tiny / "clip")
    )
    assert torch.equal(found, expected)


@pytest.mark.parametrize("kind", ["blip", "git", "llava"])
@pytest.mark.parametrize("aged", [as_one_file, as_two_files])
def test_captioners_with_their_processor_in_one_file_or_two(tiny: Path, old, kind: str, aged) -> None:
    """Of LLaVA's first files none says how many tokens an image is: that is of the model."""
    folder = old(kind)
    whole = folder / "processor_config.json"
    if kind == "llava":
        own = json.loads(whole.read_text())["image_processor"]
        (folder / "preprocessor_config.json").write_text(json.dumps(own | {"image_mean": [0.4, 0.5, 0.6]}))
        edit(whole, image_processor=own | {"image_mean": [0.4, 0.5, 0.6]})
    edit(folder / "preprocessor_config.json", image_mean=[0.4, 0.5, 0.6])
    like = shutil.copytree(folder, folder.with_name("like"))
    aged(folder)
    check_captioner(kind, folder, like)
