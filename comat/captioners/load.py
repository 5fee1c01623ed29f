"""Which captioners the parameters name, one or several together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from comat.captioners import Captioner
from comat.errors import UserError
from comat.models.loading import loaded
from comat.params import CaptionerParams, OneCaptioner


@dataclass(frozen=True)
class Teacher:
    """A captioner with the name of its column and the weight of its loss."""

    name: str
    captioner: Captioner
    weight: float = 1.0


@dataclass(frozen=True)
class Mixture:
    """Captioners that teach together: their losses, each times its weight, are added."""

    teachers: Sequence[Teacher]


def teachers_of(captioner: Captioner | Mixture) -> Sequence[Teacher]:
    """The members of a mixture; a captioner alone, whose loss needs no column of its own, has no name."""
    return captioner.teachers if isinstance(captioner, Mixture) else (Teacher("", captioner),)


def load_teacher(own: CaptionerParams, device: torch.device, dtype: torch.dtype) -> Captioner | Mixture:
    """The captioner of the parameters, or a mixture where they list several.

    Raises:
        UserError: as `load_captioner`.
    """
    found = [load_captioner(one, device, dtype) for one in own.captioners]
    if not isinstance(own.captioner, list):
        return found[0]
    weights = [one.weight for one in own.captioner]
    return Mixture([Teacher(*row) for row in zip(columns(own), found, weights, strict=True)])


def columns(own: CaptionerParams) -> list[str]:
    """The names of several captioners: their kinds, numbered where one comes twice; none of one alone."""
    if not isinstance(own.captioner, list):
        return []
    kinds = [one.column for one in own.captioner]
    return [f"{k}_{kinds[: at + 1].count(k)}" if k in kinds[:at] else k for at, k in enumerate(kinds)]


def load_captioner(own: OneCaptioner, device: torch.device, dtype: torch.dtype) -> Captioner:
    """Load a captioner from a hub id or folder; frozen.

    Raises:
        UserError: if it cannot be had, or makes nothing of a grey image: its files are not of one model then.
    """
    captioner = _build(own, device, dtype)

    def tried() -> Captioner:
        # Not 0.5: what is zero after normalisation is padding to Idefics3 and SmolVLM, and not looked at.
        grey = torch.full((1, 3, 64, 64), 0.4, device=device)
        with torch.no_grad():
            log_p, _ = captioner.log_likelihood(grey, ["a thing"])
        if log_p.isnan().any():
            raise UserError(
                f"captioner_model {own.captioner_model!r}: what it says of a grey image is not a number; download it "
                "again"
            )
        return captioner

    return loaded(own.captioner_model, f"captioner {own.captioner} (tried on a grey image)", tried)


def _build(own: OneCaptioner, device: torch.device, dtype: torch.dtype) -> Captioner:
    source = (own.captioner_model, own.captioner_revision)
    if own.captioner == "blip":
        from comat.captioners.blip import Blip

        return Blip(*source, own.caption_prefix, device, dtype)
    if own.captioner == "git":
        from comat.captioners.git import Git

        return Git(*source, own.caption_prefix, device, dtype)
    if own.captioner == "clip_similarity":
        from comat.captioners.clip_similarity import ClipSimilarity

        return ClipSimilarity(*source, device, dtype)
    from comat.captioners.vlm import Vlm

    return Vlm(*source, own.caption_prefix, own.captioner_question, own.captioner_answer, device, dtype)
