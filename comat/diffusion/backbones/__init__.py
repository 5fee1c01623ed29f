"""Base models: one file a family, chosen by the table `comat.models.families`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib import import_module
from typing import Any

import torch
from diffusers import DDPMScheduler

from comat.diffusion.backbones.autoencoder import load_vae, vae_without_weights
from comat.diffusion.backbones.base import Backbone, PromptEmbeddings, Stored
from comat.errors import UserError
from comat.models.families import Family, family_of, texts_of
from comat.models.loading import load_model, loaded, pipeline_index
from comat.running.device import DTYPES
from comat.tokenizers import load_tokenizers

__all__ = ["Backbone", "PromptEmbeddings", "Stored", "assembled", "backbone_class", "load_base", "load_encoders"]

Part = Callable[[type, str], Any]


def backbone_class(family: Family) -> type[Backbone]:
    """The class of a family; its file is read now, not before."""
    module, name = family.backbone.split(".")
    return getattr(import_module(f"{__name__}.{module}"), name)


def load_base(
    model: str,
    revision: str | None = None,
    *,
    denoiser: str | None = None,
    vae: Any = None,
    vae_revision: str | None = None,
    precision: str = "fp32",
    device: torch.device | str = "cpu",
    stored: Stored | None = None,
) -> Backbone:
    """Load from a hub id or a folder in hub layout; `denoiser` and `vae` (or a loaded one) replace its own, `stored`
    embeddings its text encoders, which are not loaded then.

    Raises:
        UserError: naming the part that is missing or of another architecture.
    """

    def part(kind: type, name: str) -> Any:
        other = denoiser if name == family.denoiser else None
        where = (other, None) if other else (model, revision)
        folder = "" if other else name
        return load_model(kind, *where, part=name, subfolder=folder, dtype=DTYPES[precision], device=device)

    family = family_of(model, pipeline_index(model, revision))
    if vae is None or isinstance(vae, str):
        other, vae = vae, load_vae(model, revision, vae, vae_revision, precision, device)
        if type(vae).__name__ != family.vae:
            raise UserError(f"vae {other or model!r}: it is an {type(vae).__name__}: expected an {family.vae}")
    return assembled(model, revision, part, vae, stored)


def load_encoders(
    model: str, revision: str | None = None, precision: str = "fp32", device: torch.device | str = "cpu"
) -> Callable[[Sequence[str]], PromptEmbeddings]:
    """How a model encodes prompts, from its text encoders alone; of its other parts the configurations are read.

    Raises:
        UserError: naming the part that is missing or of another architecture.
    """
    family = family_of(model, pipeline_index(model, revision))

    def part(kind: Any, name: str) -> Any:
        if name != family.denoiser:
            return load_model(
                kind, model, revision, part=name, subfolder=name, dtype=DTYPES[precision], device=torch.device(device)
            )
        config = loaded(model, name, lambda: kind.load_config(model, revision=revision, subfolder=name))
        with torch.device("meta"):
            return kind.from_config(config)

    return assembled(model, revision, part, vae_without_weights(model, revision)).encode_prompts


def assembled(model: str, revision: str | None, part: Part, vae: Any, stored: Stored | None = None) -> Backbone:
    """The model of a hub id or a folder, from what `part(class, name)` makes of its denoiser and text encoders.

    Raises:
        UserError: if its parts do not fit each other.
    """
    index = pipeline_index(model, revision)
    family = family_of(model, index)
    texts, kind = texts_of(model, family, index), backbone_class(family)
    classes = dict(zip(family.texts, kind.ENCODERS, strict=True))
    encoders = [] if stored else [part(classes[text], text.encoder) for text in texts]
    tokenizers = load_tokenizers(model, revision)
    where = {"subfolder": "scheduler", "revision": revision}
    schedule = loaded(model, "scheduler", lambda: DDPMScheduler.load_config(model, **where))
    denoiser = part(kind.DENOISER, family.denoiser)

    def build() -> Backbone:
        return kind(family, texts, denoiser, vae, encoders, tokenizers, schedule, index, stored)

    return loaded(model, "its parts, which have to fit each other", build)
