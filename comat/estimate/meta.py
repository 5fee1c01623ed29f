"""The models of the parameters without their weights: built from their configurations on PyTorch's meta device."""

from __future__ import annotations

from collections.abc import Callable

import torch
import transformers
from diffusers import AutoencoderKL, UNet2DConditionModel
from torch import nn
from transformers import AutoConfig, AutoModel, CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

from comat.diffusion.backbone import Backbone
from comat.errors import UserError, first_line
from comat.models.loading import pipeline_index
from comat.running.device import DTYPES
from comat.tokenizers import load_tokenizers


def meta_backbone(model: str, revision: str | None, vae: str | None, vae_revision: str | None, dtype: str) -> Backbone:
    """A diffusion model on the meta device; only configurations and tokenizers are read (or downloaded).

    Raises:
        UserError: if they cannot be had.
    """
    tokenizers = load_tokenizers(model, revision)
    encoders = {"text_encoder": CLIPTextModel, "text_encoder_2": CLIPTextModelWithProjection}
    autoencoder = {"pretrained_model_name_or_path": vae, "revision": vae_revision}
    own = {"pretrained_model_name_or_path": model, "revision": revision}
    try:
        index = pipeline_index(model, revision)
        unet = UNet2DConditionModel.load_config(**own, subfolder="unet")
        decoder = AutoencoderKL.load_config(**(autoencoder if vae else own | {"subfolder": "vae"}))
        texts = {part: CLIPTextConfig.from_pretrained(**own, subfolder=part) for part in encoders if index.get(part)}
    except (OSError, ValueError) as error:
        raise UserError(f"base_model {model!r}: cannot read its configuration: {first_line(error)}") from None
    with torch.device("meta"):
        modules = [UNet2DConditionModel.from_config(unet), AutoencoderKL.from_config(decoder)]
        modules += [encoders[part](config) for part, config in texts.items()]
    # Not their own `to`: it warns of modules to be kept in float32 even where there are none.
    modules = [nn.Module.to(module, DTYPES[dtype]) for module in modules]
    zero = bool(index.get("force_zeros_for_empty_prompt", False))
    return Backbone(modules[0], modules[1], modules[2:], tokenizers, {}, zero)


def meta_model(key: str, model: str, revision: str | None, dtype: str, base: bool = False) -> nn.Module:
    """A model of transformers on the meta device, of the class that its configuration names.

    base: without the head for its task, as `AutoModel` loads it.

    Raises:
        UserError: if its configuration cannot be had.
    """
    try:
        config = AutoConfig.from_pretrained(model, revision=revision)
        kind = AutoModel.from_config if base else getattr(transformers, config.architectures[0])
    except (OSError, ValueError, AttributeError, TypeError) as error:
        raise UserError(f"{key} {model!r}: cannot read its configuration: {first_line(error)}") from None
    return emptied(lambda: kind(config), dtype)


def emptied(build: Callable[[], nn.Module], dtype: str) -> nn.Module:
    """The module that `build` makes, frozen, without storage."""
    with torch.device("meta"):
        module = build()
    # To the device once more: some weights are made by `torch.Tensor(size)`, which no device's context reaches.
    return nn.Module.to(module, "meta", DTYPES[dtype]).requires_grad_(False).eval()
