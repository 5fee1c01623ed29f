"""Which captioners the parameters name, one or several together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

import torch

from comat.captioners import Captioner
from comat.captioners.checkpointing import checkpoint_layers
from comat.errors import UserError
from comat.models.loading import loaded
from comat.params import GENEVAL2_MODEL, CaptionerParams, OneCaptioner

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from comat.captioners.blip import Blip
    from comat.captioners.clip_similarity import ClipSimilarity
    from comat.captioners.dialogue import Dialogue
    from comat.captioners.git import Git
    from comat.captioners.vlm import Vlm

LOSS_SCALE = 1024.0
"""Of fp16 at first. torch's own 65,536 overflows, each time at the price of an iteration: see docs/speed.md."""
Shared: TypeAlias = "dict[tuple[str, str | None], PreTrainedModel]"
"""Vision-language models by hub id or folder and revision."""


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


def load_teacher(
    own: CaptionerParams, device: torch.device, dtype: torch.dtype, *, checkpointed: bool = False
) -> Captioner | Mixture:
    """The captioner of the parameters, or a mixture where they list several.

    `checkpointed` ones do not keep the activations of their layers, but run these again in the backward pass.

    Raises:
        UserError: as `load_captioner`.
    """
    found = load_captioners(own, device, dtype, teaches=True, checkpointed=checkpointed)
    if not isinstance(own.captioner, list):
        return found[0]
    weights = [one.weight for one in own.captioner]
    return Mixture([Teacher(*row) for row in zip(captioner_columns(own), found, weights, strict=True)])


def load_captioners(
    own: CaptionerParams,
    device: torch.device,
    dtype: torch.dtype,
    *,
    teaches: bool = False,
    checkpointed: bool = False,
) -> list[Captioner]:
    """All captioners of the parameters; a vision-language model that is asked in several ways is loaded once.

    Raises:
        UserError: as `load_captioner`.
    """
    shared: Shared = {}
    return [
        load_captioner(one, device, dtype, key=key, teaches=teaches, checkpointed=checkpointed, shared=shared)
        for key, one in zip(own.captioner_keys, own.captioners, strict=True)
    ]


def captioner_columns(own: CaptionerParams) -> list[str]:
    """The names of several captioners: their kinds, numbered where one comes twice; none of one alone."""
    if not isinstance(own.captioner, list):
        return []
    kinds = [one.column for one in own.captioner]
    return [f"{k}_{kinds[: at + 1].count(k)}" if k in kinds[:at] else k for at, k in enumerate(kinds)]


def load_captioner(
    own: OneCaptioner,
    device: torch.device,
    dtype: torch.dtype,
    *,
    key: str = "captioner_model",
    teaches: bool = False,
    checkpointed: bool = False,
    shared: Shared | None = None,
) -> Captioner:
    """Load a captioner from a hub id or folder; frozen. `key` is the parameter that names it.

    What is in `shared` is not loaded again, and what is loaded is put there.

    Raises:
        UserError: if it cannot be had, or makes nothing of a grey image: its files are not of one model then; of one
            that is to teach also if no gradient comes back to the image, and of one that is checkpointed if its layers
            say something else so.
    """
    captioner = _build(own, device, dtype, key, {} if shared is None else shared)
    said = f"{key} {own.captioner_model!r}"

    def tried() -> Captioner:
        # Not 0.5: what is zero after normalisation is padding to Idefics3 and SmolVLM, and not looked at.
        grey = torch.full((1, 3, 64, 64), 0.4, device=device, requires_grad=teaches)
        with torch.set_grad_enabled(teaches):
            log_p, _ = captioner.log_likelihood(grey, ["a thing"])
            if checkpointed:
                checkpoint_layers(captioner.model)
                again, _ = captioner.log_likelihood(grey, ["a thing"])
                if not torch.equal(again, log_p):
                    raise UserError(
                        f"{said}: its layers say something else where they are checkpointed; set "
                        "train.gradient_checkpointing to decoder"
                    )
                log_p = again
        if log_p.isnan().any():
            raise UserError(
                f"{said}: what it says of a grey image is not a number; download it again"
                + (", or set precision to bf16 or fp32" if dtype == torch.float16 else "")
            )
        if teaches and not (log_p.requires_grad and _reaches(grey, log_p)):
            raise UserError(
                f"{said}: no gradient comes back to the image, by its processor or its image tower, so that nothing "
                "would be learned of it; name another model"
                + (", or set precision to bf16 or fp32" if dtype == torch.float16 else "")
            )
        return captioner

    return loaded(own.captioner_model, f"captioner {own.captioner} (tried on a grey image)", tried)


def check_dialogue(own: OneCaptioner, key: str) -> Dialogue:
    """How a vision-language model is asked about an image, by its files without weights.

    Raises:
        UserError: if it cannot be asked; `key` is the parameter that names it. Of GenEval 2's as `check_numerals`.
    """
    from comat.captioners.dialogue import Dialogue, check_numerals
    from comat.captioners.vlm import vlm_class

    source = (own.captioner_model, own.captioner_revision)
    vlm_class(*source, key)
    dialogue = Dialogue(*source, own.caption_prefix, own.captioner_question, own.captioner_answer, key)
    if key == GENEVAL2_MODEL:
        check_numerals(dialogue)
    return dialogue


@torch.enable_grad()  # `evaluate` loads it where no gradients are wanted
def _reaches(image: torch.Tensor, log_p: torch.Tensor) -> bool:
    # Scaled as training scales its loss at first: of a small number fp16 makes zero.
    (gradient,) = torch.autograd.grad(LOSS_SCALE * log_p.float().sum(), image, allow_unused=True)
    return gradient is not None and bool(gradient.any())


def _build(
    own: OneCaptioner, device: torch.device, dtype: torch.dtype, key: str, shared: Shared
) -> Blip | Git | ClipSimilarity | Vlm:
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

    asked = (own.caption_prefix, own.captioner_question, own.captioner_answer)
    vlm = Vlm(*source, *asked, device, dtype, key, shared=shared.get(source))
    shared[source] = vlm.model
    return vlm
