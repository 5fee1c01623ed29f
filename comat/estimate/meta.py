"""The models of the parameters without their weights: built from their configurations on PyTorch's meta device."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import torch
from diffusers import AutoencoderKL, ModelMixin
from torch import nn
from transformers import AutoConfig, AutoModel, PreTrainedConfig, PreTrainedModel

from comat.diffusion.backbones import Backbone, assembled
from comat.diffusion.backbones.autoencoder import vae_class
from comat.errors import UserError, first_line
from comat.estimate.cost import AsOnDevice
from comat.running.device import DTYPES

N = TypeVar("N", bound=nn.Module)
P = TypeVar("P", bound=PreTrainedModel)


def meta_backbone(model: str, revision: str | None, vae: str | None, vae_revision: str | None, dtype: str) -> Backbone:
    """A diffusion model on the meta device; only configurations and tokenizers are read (or downloaded).

    Raises:
        UserError: if they cannot be had, or do not fit together.
    """

    def part(kind: Any, name: str) -> Any:
        if issubclass(kind, ModelMixin):
            config = kind.load_config(model, revision=revision, subfolder=name)
            return emptied(lambda: kind.from_config(config), dtype)
        where = {"subfolder": name, "revision": revision or "main"}
        own = kind.config_class.from_pretrained(model, **where)
        return emptied(lambda: kind(own), dtype)

    where = (vae, vae_revision, None) if vae else (model, revision, "vae")
    try:
        decoder = AutoencoderKL.load_config(where[0], revision=where[1], subfolder=where[2])
        kind = vae_class(decoder)
        with AsOnDevice():
            return assembled(model, revision, part, emptied(lambda: kind.from_config(decoder), dtype))
    except (OSError, ValueError) as error:
        raise UserError(f"base_model {model!r}: cannot read its configuration: {first_line(error)}") from None


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
