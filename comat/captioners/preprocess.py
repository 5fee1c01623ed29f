"""Image preprocessing in torch, from a model's own `preprocessor_config.json`; gradients flow."""

from __future__ import annotations

import json
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers.utils import cached_file

from comat.errors import UserError


class Preprocess:
    """Resize (bicubic, antialiased) to the model's square input and normalise."""

    def __init__(self, model: str, revision: str | None, size: int) -> None:
        try:
            path = cached_file(model, "preprocessor_config.json", revision=revision)
            config = json.loads(Path(path).read_text())
        except OSError as error:
            raise UserError(f"model {model!r}: no preprocessor_config.json: {str(error).splitlines()[0]}") from None
        self.size = size
        self.mean = torch.tensor(config["image_mean"]).view(1, 3, 1, 1)
        self.std = torch.tensor(config["image_std"]).view(1, 3, 1, 1)

    def __call__(self, images: Tensor, dtype: torch.dtype) -> Tensor:
        """(B, 3, H, W) in [0, 1] → (B, 3, size, size), normalised."""
        if images.shape[-2:] != (self.size, self.size):
            images = F.interpolate(images, (self.size, self.size), mode="bicubic", antialias=True).clamp(0, 1)
        return ((images - self.mean.to(images)) / self.std.to(images)).to(dtype)
