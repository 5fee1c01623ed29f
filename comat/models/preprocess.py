"""Image preprocessing in torch, from a model's own processor configuration; gradients flow."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import AutoImageProcessor, BaseImageProcessor

from comat.errors import UserError
from comat.models.loading import loaded
from comat.storage.yaml_files import shown


def image_processor(model: str, revision: str | None) -> BaseImageProcessor:
    """The image processor of a model, tried on a grey image.

    Raises:
        UserError: if there is none, or its configuration is of no use.
    """

    def load() -> BaseImageProcessor:
        processor = AutoImageProcessor.from_pretrained(model, revision=revision, trust_remote_code=False)
        seen = processor([torch.full((3, 64, 64), 0.5)], do_rescale=False, return_tensors="pt").pixel_values
        if not seen.isfinite().all():
            raise UserError(f"model {model!r}: its preprocessor_config.json makes a grey image infinite or NaN")
        return processor

    return loaded(model, "image processor", load)


def _channels(model: str, name: str, values: object) -> Tensor:
    """(1, 3, 1, 1) of a mean or a standard deviation by channel."""
    numbers = values if isinstance(values, list) and len(values) == 3 else []
    lowest = 0 if name == "image_std" else -math.inf
    if not numbers or not all(isinstance(v, int | float) and math.isfinite(v) and v > lowest for v in numbers):
        raise UserError(
            f"model {model!r}: {name} in its preprocessor_config.json is {shown(values)}: expected three numbers"
            + (" above 0" if name == "image_std" else "")
        )
    return torch.tensor(numbers, dtype=torch.float32).view(1, 3, 1, 1)


class Preprocess:
    """Resize (bicubic, antialiased) square images to the model's input and normalise.

    For square images this is what the processors of BLIP, GIT, LLaVA and CLIPSeg do; they would crop others. Nothing is
    clamped, at no size: a pixel that is saturated keeps its gradient. `size` is the side of the input in px, or both of
    its sides, as some configurations give them.

    Raises:
        UserError: if the model has no image processor, or its input is not square.
    """

    def __init__(self, model: str, revision: str | None, size: int | Sequence[int]) -> None:
        config, _ = loaded(
            model, "image processor", lambda: BaseImageProcessor.get_image_processor_dict(model, revision=revision)
        )
        height, width = (size, size) if isinstance(size, int) else size
        if height != width:
            raise UserError(f"model {model!r}: expected one of square images, its image_size is {height} x {width} px")
        self.size = height
        self.mean, self.std = (_channels(model, name, config.get(name)) for name in ("image_mean", "image_std"))

    def __call__(self, images: Tensor, dtype: torch.dtype) -> Tensor:
        """(B, 3, H, W), black 0 and white 1 → (B, 3, size, size), normalised."""
        if images.shape[-2:] != (self.size, self.size):
            images = F.interpolate(images, (self.size, self.size), mode="bicubic", antialias=True)
        return ((images - self.mean.to(images)) / self.std.to(images)).to(dtype)
