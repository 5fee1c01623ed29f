"""The Inception of FID: TensorFlow's of 5 December 2015, in torchvision's blocks.

It differs from torchvision's own in its weights, its 1008 classes and the pooling of its blocks: means leave the
padding out, and the last block takes maxima (the port of github.com/mseitzer/pytorch-fid, whose weights these are).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn
from torchvision.models import inception_v3
from torchvision.models.inception import InceptionA, InceptionC, InceptionE
from torchvision.transforms.functional import pil_to_tensor

from comat.models.download import find_model
from comat.models.loading import loaded
from comat.models.names import ModelName
from comat.storage.tables import read_safetensors

SIDE = 299  # px


def stretch(image: Image.Image, size: int) -> Tensor:
    """All of an RGB image, both sides by themselves, bilinear without antialiasing: (3, size, size) in [0, 1].

    What pytorch-fid 0.3.0 does, and published distances with it.
    """
    pixels = pil_to_tensor(image)[None].float() / 255
    return F.interpolate(pixels, (size, size), mode="bilinear", align_corners=False)[0]


def _means(x: Tensor) -> Tensor:
    """Means over the image alone."""
    return F.avg_pool2d(x, 3, stride=1, padding=1, count_include_pad=False)


class _A(InceptionA):
    def _forward(self, x: Tensor) -> list[Tensor]:
        return [*super()._forward(x)[:-1], self.branch_pool(_means(x))]


class _C(InceptionC):
    def _forward(self, x: Tensor) -> list[Tensor]:
        return [*super()._forward(x)[:-1], self.branch_pool(_means(x))]


class _E(InceptionE):
    def _forward(self, x: Tensor) -> list[Tensor]:
        return [*super()._forward(x)[:-1], self.branch_pool(_means(x))]


class _LastE(InceptionE):
    """The only block whose pooling branch takes maxima."""

    def _forward(self, x: Tensor) -> list[Tensor]:
        return [*super()._forward(x)[:-1], self.branch_pool(F.max_pool2d(x, 3, stride=1, padding=1))]


def build() -> nn.Module:
    """The architecture with random weights: (N, 3, 299, 299) in [-1, 1] → (N, 2048), what its classifier would see."""
    model = inception_v3(num_classes=1008, aux_logits=False, transform_input=False, init_weights=False)
    model.Mixed_5b, model.Mixed_5c, model.Mixed_5d = _A(192, 32), _A(256, 64), _A(288, 64)
    model.Mixed_6b, model.Mixed_6c, model.Mixed_6d, model.Mixed_6e = (_C(768, n) for n in (128, 160, 160, 192))
    model.Mixed_7b, model.Mixed_7c = _E(1280), _LastE(2048)
    model.fc = nn.Identity()
    return model.eval().requires_grad_(False)


class Inception(nn.Module):
    """FID's features from its weights in a safetensors file of a hub id or folder.

    Raises:
        UserError: if the file cannot be had, or its weights are of another architecture.
    """

    def __init__(self, model: str, revision: str | None, file: str) -> None:
        super().__init__()
        folder, _ = find_model(ModelName("evaluate.fid.inception_model", model, revision, files=(file,)))
        weights = {n: value for n, value in read_safetensors(folder / file).items() if not n.startswith("fc.")}
        self.model = build()
        loaded(model, file, lambda: self.model.load_state_dict(weights))

    @torch.no_grad()
    def forward(self, images: Tensor) -> Tensor:
        """(N, 3, 299, 299) images from 0 to 255 → (N, 2048), in float64 as the distance is computed."""
        return self.model(images.float() / 127.5 - 1).double()
