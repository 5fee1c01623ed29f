"""Image preprocessing in torch, from a model's own processor configuration; gradients flow."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import BaseImageProcessor

from comat.errors import UserError
from comat.models.loading import loaded


class Preprocess:
    """Resize (bicubic, antialiased) square images to the model's input and normalise.

    For square images this is what the processors of BLIP, GIT, LLaVA and CLIPSeg do; they would crop others. `size` is
    the side of the input in px, or both of its sides, as some configurations give them.

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
        self.mean = torch.tensor(config["image_mean"]).view(1, 3, 1, 1)
        self.std = torch.tensor(config["image_std"]).view(1, 3, 1, 1)

    def __call__(self, images: Tensor, dtype: torch.dtype) -> Tensor:
        """(B, 3, H, W) in [0, 1] → (B, 3, size, size), normalised."""
        if images.shape[-2:] != (self.size, self.size):
            images = F.interpolate(images, (self.size, self.size), mode="bicubic", antialias=True).clamp(0, 1)
        return ((images - self.mean.to(images)) / self.std.to(images)).to(dtype)
