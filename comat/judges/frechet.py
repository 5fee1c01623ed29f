"""The Fréchet distance between two sets of images, in the features of a model that took no part in training."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

import numpy as np
import torch
import transformers
from torch import Tensor, nn
from torchmetrics.image.fid import FrechetInceptionDistance
from transformers import PreTrainedModel

from comat.errors import UserError
from comat.models.loading import load_config, load_model
from comat.models.preprocess import Preprocess


class Features(nn.Module):
    """Pooled features of an image model in hub layout; for square images.

    Raises:
        UserError: if the model cannot be had, lacks weights or pools no features.
    """

    def __init__(self, model: str, revision: str | None, size: int) -> None:
        super().__init__()
        self.model = _without_head(model, revision)
        self.preprocess = Preprocess(model, revision, size)
        if self._pooled(torch.zeros(1, 3, size, size)) is None:
            raise UserError(
                f"model {model!r}: expected an image model with pooled features (a ResNet, a ConvNeXt, a DINOv2 …), "
                f"found a {type(self.model).__name__} without"
            )

    @torch.no_grad()
    def forward(self, images: Tensor) -> Tensor:
        """(N, 3, H, W) uint8 images → (N, D), in float64 as the distance is computed."""
        pooled = self._pooled(images.float() / 255)
        assert pooled is not None  # it was not when the model was loaded
        return pooled.flatten(1).double()

    @torch.no_grad()
    def _pooled(self, images: Tensor) -> Tensor | None:
        return self.model(pixel_values=self.preprocess(images, torch.float32)).pooler_output


def _without_head(model: str, revision: str | None) -> nn.Module:
    """An image model less the head that it was trained with, a classifier say.

    It is loaded as the class that it is and the head left out then: read as the class without, the file has weights
    too many, and what the class has beside the file's is random.
    """
    config = load_config(model, revision)
    name = (config.architectures or [""])[0]
    kind = getattr(transformers, name, None)
    if not (isinstance(kind, type) and issubclass(kind, PreTrainedModel)):
        raise UserError(f"model {model!r}: expected architectures in config.json to name a model, found {name!r}")
    return load_model(kind, model, revision, part="features", dtype=torch.float32).base_model


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


class _Given(nn.Module):
    """Features that are there already."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.num_features = size

    def forward(self, features: Tensor) -> Tensor:
        return features


def distances_between(
    real: Iterable[Tensor], drawn: Mapping[str, Iterable[Tensor]], device: torch.device
) -> dict[str, float]:
    """Heusel et al. 2017: |mu_a - mu_b|^2 + tr(C_a + C_b - 2 (C_a C_b)^(1/2)) of every drawn set to the real one.

    `real` and each of `drawn` yield features (N, D), float64.

    Raises:
        UserError: if a set has fewer than two images.
    """
    batches = iter(real)
    first = next(batches, torch.empty(0, 1))
    metric = FrechetInceptionDistance(feature=_Given(first.shape[1]), reset_real_features=False, sync_on_compute=False)
    metric = metric.to(device)
    for batch in (first, *batches):
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


def frechet_distances(
    features: nn.Module, real: Iterable[Tensor], drawn: Mapping[str, Iterable[Tensor]], device: torch.device
) -> dict[str, float]:
    """`distances_between` the features of images: (N, 3, H, W) uint8, as `real` and each of `drawn` yield them.

    Raises:
        UserError: if a set has fewer than two images.
    """
    model = features.to(device)

    def seen(batches: Iterable[Tensor]) -> Iterator[Tensor]:
        return (model(batch.to(device)) for batch in batches)

    return distances_between(seen(real), {name: seen(own) for name, own in drawn.items()}, device)
