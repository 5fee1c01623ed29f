"""The features that a Fréchet distance compares: those of an image model, whatever head it was trained with."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModel, ViTConfig, ViTForImageClassification
from transformers.utils import logging as messages

from comat.errors import UserError
from comat.judges.frechet import Features
from comat.shapes.recipe import features
from comat.shapes.recipe.__main__ import save
from tests.imports import ROOT

SHIPPED = str(ROOT / "data/shapes/models/features")


def test_the_shipped_model_is_read_without_a_complaint(caplog: pytest.LogCaptureFixture) -> None:
    """Of a classifier the body is wanted; transformers reports what a file has beside the class that reads it."""
    messages.enable_propagation()
    try:
        with caplog.at_level(logging.WARNING):
            judge = Features(SHIPPED, None, 64)
            assert caplog.text == ""
            body = AutoModel.from_pretrained(SHIPPED, dtype=torch.float32).eval()
            assert "UNEXPECTED" in caplog.text  # the report would be seen here
    finally:
        messages.disable_propagation()
    images = torch.randint(0, 256, (2, 3, 64, 64), generator=torch.Generator().manual_seed(0)).to(torch.uint8)
    pixels = judge.preprocess(images.float() / 255, torch.float32)
    assert torch.equal(judge(images), body(pixel_values=pixels).pooler_output.flatten(1).double())
    assert judge(images).shape == (2, 64)


def test_a_model_that_lacks_weights_is_not_filled_up_at_random(tmp_path: Path) -> None:
    save(features.build(), tmp_path, processor="ConvNextImageProcessor")
    weights = load_file(tmp_path / "model.safetensors")
    lost = sorted(name for name in weights if name.endswith("convolution.weight"))[0]
    save_file({k: v for k, v in weights.items() if k != lost}, tmp_path / "model.safetensors", {"format": "pt"})
    with pytest.raises(UserError, match=f"features lacks 1 weights of a ResNetForImageClassification, {lost} among"):
        Features(str(tmp_path), None, 16)


def test_a_model_that_pools_nothing_is_refused(tmp_path: Path) -> None:
    """A ViT that classifies has no pooler: what pools in the class without its head would be random."""
    sizes = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 8}
    save(
        ViTForImageClassification(ViTConfig(**sizes, image_size=16, patch_size=8)),
        tmp_path,
        processor="ViTImageProcessor",
    )
    with pytest.raises(UserError, match=r"expected an image model with pooled features .* found a ViTModel without"):
        Features(str(tmp_path), None, 16)


def test_a_configuration_that_names_no_model_is_refused(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "resnet", "architectures": ["NoSuchNet"]}')
    with pytest.raises(UserError, match=r"expected architectures in config.json to name a model, found 'NoSuchNet'"):
        Features(str(tmp_path), None, 16)
