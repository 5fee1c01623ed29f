"""Table 3's ablation: frozen features of the decoded image (DINO, Caron et al. 2021), and a small head."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from transformers import Dinov2Model, ViTModel

from comat.diffusion.backbones import Backbone
from comat.errors import UserError
from comat.models.loading import load_config, load_model
from comat.models.preprocess import Preprocess

Features = ViTModel | Dinov2Model


class DinoDiscriminator(nn.Module):
    """Logits per patch. Its latents are images once `backbone` has decoded them; only the head trains.

    The paper does not say how its DINO judges. Here each patch is judged by itself, as the UNet judges each pixel.
    """

    def __init__(
        self, features: Features, preprocess: Preprocess, backbone: Backbone, generator: torch.Generator
    ) -> None:
        super().__init__()
        self._backbone, self._preprocess = backbone, preprocess
        self.features = features
        width = features.config.hidden_size
        first, second = nn.Linear(width, width), nn.Linear(width, 1)
        self.head = nn.Sequential(nn.LayerNorm(width), first, nn.GELU(), second)
        with torch.no_grad():
            for layer in (first, second):
                layer.weight.copy_(torch.randn(layer.weight.shape, generator=generator) / width**0.5)
                layer.bias.zero_()
        self.head.to(backbone.device)

    @classmethod
    def load(
        cls, model: str, revision: str | None, backbone: Backbone, generator: torch.Generator
    ) -> DinoDiscriminator:
        """Features of a hub id or folder `model`."""
        features = _load(model, revision, backbone.dtype, backbone.device)
        return cls(features, Preprocess(model, revision, features.config.image_size), backbone, generator)

    def forward(self, z: Tensor) -> Tensor:
        """Logits (B, patches) that latents z (B, C, h, w) are the original model's."""
        pixels = self._preprocess(self._backbone.decode(z), self.features.dtype)
        patches = self.features(pixel_values=pixels).last_hidden_state[:, 1:]
        return self.head(patches.float()).squeeze(-1)

    def trainable_parameters(self) -> list[nn.Parameter]:
        return list(self.head.parameters())

    def trainable_state(self) -> dict[str, Tensor]:
        return {f"head.{name}": value for name, value in self.head.state_dict().items()}

    def load_trainable_state(self, state: dict[str, Tensor]) -> None:
        self.head.load_state_dict({name.removeprefix("head."): value for name, value in state.items()})


def _load(model: str, revision: str | None, dtype: torch.dtype, device: torch.device) -> Features:
    """DINO is a plain vision transformer without a pooler, DINOv2 a class of its own."""
    kind = load_config(model, revision).model_type
    if kind == "vit":
        return load_model(ViTModel, model, revision, part="DINO", dtype=dtype, device=device, add_pooling_layer=False)
    if kind == "dinov2":
        return load_model(Dinov2Model, model, revision, part="DINOv2", dtype=dtype, device=device)
    raise UserError(f"discriminator_model {model!r}: expected a DINO (vit) or a DINOv2 (dinov2), found {kind}")
