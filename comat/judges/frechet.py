"""The Fréchet distance between two sets of images, in the features of a model that took no part in training."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

import numpy as np
import torch
from torch import Tensor, nn
from torchmetrics.image.fid import FrechetInceptionDistance

from comat.errors import UserError
from comat.models.loading import load_auto
from comat.models.preprocess import Preprocess


class Features(nn.Module):
    """Pooled features of an image model in hub layout; for square images.

    Raises:
        UserError: if the model cannot be had.
    """

    def __init__(self, model: str, revision: str | None, size: int) -> None:
        super().__init__()
        self.name = model
        self.model = load_auto(model, revision, part="features", dtype=torch.float32)
        self.preprocess = Preprocess(model, revision, size)

    @torch.no_grad()
    def forward(self, images: Tensor) -> Tensor:
        """(N, 3, H, W) uint8 images → (N, D), in float64 as the distance is computed."""
        pixels = self.preprocess(images.float() / 255, torch.float32)
        pooled = self.model(pixel_values=pixels).pooler_output
        if pooled is None:
            raise UserError(f"model {self.name!r}: its {type(self.model).__name__} pools no features; name another one")
        return pooled.flatten(1).double()


def batches(images: Iterable[np.ndarray], size: int) -> Iterator[Tensor]:
    """(H, W, 3) uint8 images of one size → (N, 3, H, W) uint8, `size` at a time."""
    part: list[Tensor] = []
    for image in images:
        part.append(torch.tensor(image).permute(2, 0, 1))
        if len(part) == size:
            yield torch.stack(part)
            part = []
    if part:
        yield torch.stack(part)


def frechet_distances(
    features: nn.Module, real: Iterable[Tensor], drawn: Mapping[str, Iterable[Tensor]], device: torch.device
) -> dict[str, float]:
    """Heusel et al. 2017: |mu_a - mu_b|^2 + tr(C_a + C_b - 2 (C_a C_b)^(1/2)) of every drawn set to the real one.

    `features` maps (N, 3, H, W) uint8 images, as `real` and each of `drawn` yield them, to (N, D).

    Raises:
        UserError: if a set has fewer than two images.
    """
    metric = FrechetInceptionDistance(feature=features, reset_real_features=False).to(device)
    for batch in real:
        metric.update(batch.to(device), real=True)
    found = {}
    for name, own in drawn.items():
        metric.reset()
        for batch in own:
            metric.update(batch.to(device), real=False)
        sizes = int(metric.real_features_num_samples), int(metric.fake_features_num_samples)
        if min(sizes) < 2:
            raise UserError(
                f"Fréchet distance: expected at least two images a set, got {sizes[0]} real, {sizes[1]} of {name}"
            )
        found[name] = float(metric.compute())
    return found
