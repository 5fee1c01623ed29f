"""The feature model of the Fréchet distance: a small ResNet that names what a scene holds. It trains nothing else."""

from __future__ import annotations

from pathlib import Path

import torch
import torch.nn.functional as F
from transformers import ResNetConfig, ResNetForImageClassification

from comat.shapes.recipe.data import Example, clean_examples, images, unit
from comat.shapes.recipe.fit import fit
from comat.shapes.world.scenes import COLOURS, NOUNS


def targets(example: Example) -> list[float]:
    """How many objects of each colour and noun are there: 48 numbers."""
    kinds = [(o.colour, o.noun) for o in example.scene.objects]
    return [float(kinds.count((colour, noun))) for colour in COLOURS for noun in NOUNS]


def build() -> ResNetForImageClassification:
    """0.2 M parameters, 64 features; pixels are normalised to [-1, 1]."""
    labels = [f"{colour} {noun}" for colour in COLOURS for noun in NOUNS]
    return ResNetForImageClassification(
        ResNetConfig(
            embedding_size=16,
            hidden_sizes=[16, 32, 48, 64],
            depths=[1, 1, 1, 1],
            layer_type="basic",
            id2label=dict(enumerate(labels)),
            problem_type="multi_label_classification",
        )
    )


def train(steps: int, work: Path, precision: str) -> ResNetForImageClassification:
    """Poisson regression on the counts of every (colour, noun)."""
    torch.manual_seed(0)
    model = build()
    examples = clean_examples(10_000, seed=5)
    pixels, counts = images(examples, 64), torch.tensor([targets(e) for e in examples])

    def loss(generator: torch.Generator) -> torch.Tensor:
        rows = torch.randint(len(pixels), (64,), generator=generator)
        x = unit(pixels[rows])
        x = x + 0.1 * torch.rand(64, 1, 1, 1, generator=generator) * torch.randn(x.shape, generator=generator)
        logits = model(pixel_values=x.to(model.device)).logits.float()
        return F.poisson_nll_loss(logits, counts[rows].to(model.device)) * 10

    return fit("features", model, loss, steps=steps, learning_rate=3e-3, work=work, precision=precision)
