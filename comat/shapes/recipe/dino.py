"""DINO in miniature (Caron et al. 2021): a small vision transformer that teaches itself, to judge images by."""

from __future__ import annotations

from copy import deepcopy
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import ViTConfig, ViTModel

from comat.shapes.recipe.data import clean_examples, images, unit
from comat.shapes.recipe.fit import fit

PROTOTYPES = 256
STUDENT_TEMPERATURE, TEACHER_TEMPERATURE = 0.1, 0.04
TEACHER_MOMENTUM, CENTRE_MOMENTUM = 0.99, 0.9


def build() -> ViTModel:
    """0.5 M parameters; 64 px in patches of 8."""
    return ViTModel(
        ViTConfig(
            hidden_size=96,
            num_hidden_layers=4,
            num_attention_heads=4,
            intermediate_size=384,
            image_size=64,
            patch_size=8,
        ),
        add_pooling_layer=False,
    )


class Network(nn.Module):
    """Backbone and projection head; (B, 3, 64, 64) → (B, prototypes) cosines, of the class token."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = build()
        width = self.backbone.config.hidden_size
        self.head = nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, 64))
        self.prototypes = nn.Parameter(torch.randn(PROTOTYPES, 64))

    def forward(self, x: Tensor) -> Tensor:
        projected = self.head(self.backbone(pixel_values=x).last_hidden_state[:, 0])
        return F.normalize(projected, dim=-1) @ F.normalize(self.prototypes, dim=-1).T


class Distillation(nn.Module):
    """The student, and the teacher that follows it: no labels. The state of a run is all in here."""

    centre: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.student = Network()
        self.teacher = deepcopy(self.student).requires_grad_(False)
        self.register_buffer("centre", torch.zeros(PROTOTYPES))

    def loss(self, first: Tensor, second: Tensor) -> Tensor:
        """Cross-entropy of the student's view of an image against the teacher's of another (Eq. 2 and 3 there).

        The teacher first takes a step towards the student, as the last update left it.
        """
        self._follow()
        with torch.no_grad():
            taught = [self.teacher(view).float() for view in (first, second)]
            wanted = [((cosines - self.centre) / TEACHER_TEMPERATURE).softmax(-1) for cosines in taught]
            self.centre.lerp_(torch.cat(taught).mean(0), 1 - CENTRE_MOMENTUM)
        said = [(self.student(view).float() / STUDENT_TEMPERATURE).log_softmax(-1) for view in (second, first)]
        return sum(-(p * q).sum(-1).mean() for p, q in zip(wanted, said, strict=True)) / 2

    @torch.no_grad()
    def _follow(self) -> None:
        for theirs, ours in zip(self.teacher.parameters(), self.student.parameters(), strict=True):
            theirs.lerp_(ours, 1 - TEACHER_MOMENTUM)


def view(x: Tensor, generator: torch.Generator) -> Tensor:
    """Each of (B, 3, H, W) cut out at 60% to 100% of its width, perhaps mirrored, in other colours, with some noise.

    The colours are those of the image, stronger or weaker in each channel, in a fifth of the views without hue: as
    there, lest colours alone tell one image from another.
    """
    count = len(x)
    scale = 0.6 + 0.4 * torch.rand(count, generator=generator)
    shift = (1 - scale)[:, None] * (2 * torch.rand(count, 2, generator=generator) - 1)
    mirror = 1 - 2 * torch.randint(2, (count,), generator=generator)
    affine = torch.zeros(count, 2, 3)
    affine[:, 0, 0], affine[:, 1, 1], affine[:, :, 2] = mirror * scale, scale, shift
    seen = F.grid_sample(x, F.affine_grid(affine, list(x.shape), align_corners=False), align_corners=False)
    seen = seen * (0.5 + torch.rand(count, 3, 1, 1, generator=generator))
    grey = torch.rand(count, 1, 1, 1, generator=generator) < 0.2
    seen = torch.where(grey, seen.mean(1, keepdim=True), seen)
    spread = 0.1 * torch.rand(count, 1, 1, 1, generator=generator)
    return seen + spread * torch.randn(x.shape, generator=generator)


def train(steps: int, work: Path, precision: str) -> ViTModel:
    """The teacher's backbone."""
    torch.manual_seed(0)
    model, pixels = Distillation(), images(clean_examples(10_000, seed=6), 64)

    def loss(generator: torch.Generator) -> Tensor:
        x = unit(pixels[torch.randint(len(pixels), (64,), generator=generator)])
        first, second = (view(x, generator).to(model.centre.device) for _ in range(2))
        return model.loss(first, second)

    fit("dino", model, loss, steps=steps, learning_rate=1e-3, work=work, precision=precision)
    return model.teacher.backbone
