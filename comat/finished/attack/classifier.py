"""The judge of an attack: an image classifier that says what it sees first."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import transformers
from torch import Tensor
from transformers import BaseImageProcessor

from comat.errors import UserError
from comat.models.loading import load_config, load_model, loaded
from comat.models.preprocess import Preprocess

KIND = "ForImageClassification"


class Classifier:
    """Any image classifier of transformers, by its own size and normalisation; gradients flow to the pixels.

    A class is called by the first of its names, ImageNet's "tench, Tinca tinca" is "tench"; by all of them where two
    begin alike. Of two that are called the same ("crane") the first is meant.

    Raises:
        UserError: if it cannot be had, or is no classifier of two or more named classes.
    """

    def __init__(self, model: str, revision: str | None, device: torch.device, dtype: torch.dtype) -> None:
        config: Any = load_config(model, revision)
        name = (config.architectures or [""])[0]
        if not name.endswith(KIND) or not hasattr(transformers, name):
            raise UserError(f"model {model!r}: expected an image classifier, a ResNet{KIND} say, found {name!r}")
        self.names = names_of([str(config.id2label[number]) for number in range(len(config.id2label))])
        if len(self.names) < 2 or all(own.startswith("LABEL_") for own in self.names):
            raise UserError(f"model {model!r}: expected two or more classes with names in id2label of its config.json")
        kind = getattr(transformers, name)
        self.model: Any = load_model(kind, model, revision, part="classifier", dtype=dtype, device=device)
        self.preprocess = Preprocess(model, revision, _side(model, revision))

    def __call__(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) in [0, 1] → (B, classes) logits in float32."""
        return self.model(pixel_values=self.preprocess(images, self.model.dtype)).logits.float()

    def number(self, name: str) -> int:
        """Of the class called `name`.

        Raises:
            UserError: if there is none; says some that there are.
        """
        lower = [own.lower() for own in self.names]
        if name.lower() not in lower:
            some = ", ".join(self.names[:5])
            raise UserError(f"the classifier has no class {name!r}: it has {len(lower)}, {some} among them")
        return lower.index(name.lower())


def names_of(labels: Sequence[str]) -> list[str]:
    """What each class is called."""
    first = [label.split(",")[0].strip() for label in labels]
    return [label.strip() if first.count(name) > 1 else name for label, name in zip(labels, first, strict=True)]


def _side(model: str, revision: str | None) -> int:
    """Of its input in px, by its processor: a square image is brought to it whole, where the processor may crop."""
    config, _ = loaded(
        model, "image processor", lambda: BaseImageProcessor.get_image_processor_dict(model, revision=revision)
    )
    size = (config.get("do_center_crop") and config.get("crop_size")) or config.get("size")
    side = next(iter(size.values())) if isinstance(size, dict) and size else size
    if not isinstance(side, int):
        raise UserError(f"model {model!r}: expected the size of its input in preprocessor_config.json, found {size!r}")
    return side


def margin(logits: Tensor, label: int, kappa: float) -> Tensor:
    """max(logit of class `label` - largest of the others + kappa, 0), the mean over (B, classes) logits.

    Above zero while the class is not beaten by `kappa` (Du et al. 2023, after Carlini and Wagner 2017).
    """
    others = logits.clone()
    others[:, label] = -torch.inf
    return (logits[:, label] - others.amax(1) + kappa).clamp(min=0).mean()
