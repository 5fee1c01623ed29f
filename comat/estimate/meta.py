"""The models of the parameters without their weights: built from their configurations on PyTorch's meta device."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from torch import nn
from transformers import (
    AutoConfig,
    AutoModel,
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    PreTrainedConfig,
    PreTrainedModel,
)

from comat.diffusion.backbone import Backbone, TextEncoder, check_encoders
from comat.errors import UserError, first_line
from comat.models.loading import pipeline_index
from comat.running.device import DTYPES
from comat.tokenizers import load_tokenizers

N = TypeVar("N", bound=nn.Module)
P = TypeVar("P", bound=PreTrainedModel)
TEXT_ENCODERS: dict[str, type[TextEncoder]] = {
    "text_encoder": CLIPTextModel,
    "text_encoder_2": CLIPTextModelWithProjection,
}


def meta_backbone(model: str, revision: str | None, vae: str | None, vae_revision: str | None, dtype: str) -> Backbone:
    """A diffusion model on the meta device; only configurations and tokenizers are read (or downloaded).

    Raises:
        UserError: if they cannot be had, or do not fit together.
    """
    tokenizers, commit = load_tokenizers(model, revision), revision or "main"
    try:
        index = pipeline_index(model, revision)
        unet = UNet2DConditionModel.load_config(model, revision=revision, subfolder="unet")
        if vae:
            decoder = AutoencoderKL.load_config(vae, revision=vae_revision)
        else:
            decoder = AutoencoderKL.load_config(model, revision=revision, subfolder="vae")
        texts = {
            part: CLIPTextConfig.from_pretrained(model, revision=commit, subfolder=part)
            for part in TEXT_ENCODERS
            if index.get(part)
        }
    except (OSError, ValueError) as error:
        raise UserError(f"base_model {model!r}: cannot read its configuration: {first_line(error)}") from None
    with torch.device("meta"):
        denoiser, autoencoder = UNet2DConditionModel.from_config(unet), AutoencoderKL.from_config(decoder)
        encoders = [TEXT_ENCODERS[part](config) for part, config in texts.items()]
    check_encoders(model, denoiser, index)
    for module in (denoiser, autoencoder, *encoders):
        # Not their own `to`: it warns of modules to be kept in float32 even where there are none.
        nn.Module.to(module, DTYPES[dtype])
    zero = bool(index.get("force_zeros_for_empty_prompt", False))
    return Backbone(denoiser, autoencoder, encoders, tokenizers, {}, zero)


def meta_model(kind: type[P], key: str, model: str, revision: str | None, dtype: str) -> P:
    """A model of transformers, of the class that a run would load, on the meta device.

    Raises:
        UserError: if its configuration cannot be had, or is of another architecture.
    """
    config = _configuration(key, model, revision)
    assert kind.config_class is not None  # only that of the abstract PreTrainedModel is
    if not isinstance(config, kind.config_class):
        raise UserError(
            f"{key} {model!r}: is of another architecture: expected {kind.config_class.model_type}, "
            f"found {config.model_type}"
        )
    return emptied(lambda: kind(config), dtype)


def meta_features(key: str, model: str, revision: str | None, dtype: str) -> PreTrainedModel:
    """A model of transformers without the head for its task, as `AutoModel` loads it, on the meta device.

    Raises:
        UserError: if its configuration cannot be had.
    """
    config = _configuration(key, model, revision)
    return emptied(lambda: AutoModel.from_config(config, trust_remote_code=False), dtype)


def _configuration(key: str, model: str, revision: str | None) -> PreTrainedConfig:
    try:
        return AutoConfig.from_pretrained(model, revision=revision, trust_remote_code=False)
    except (OSError, ValueError, AttributeError, TypeError) as error:
        raise UserError(f"{key} {model!r}: cannot read its configuration: {first_line(error)}") from None


def emptied(build: Callable[[], N], dtype: str) -> N:
    """The module that `build` makes, frozen, without storage."""
    with torch.device("meta"):
        module = build()
    # To the device once more: some weights are made by `torch.Tensor(size)`, which no device's context reaches.
    nn.Module.to(module, "meta", DTYPES[dtype]).requires_grad_(False).eval()
    return module
