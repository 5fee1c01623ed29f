"""What the world's small DINO has learned: a linear regression from its features to what a scene holds.

    python -m benchmarks.dino_features [--model data/shapes/trained/dino]

Targets are the counts of objects by colour and noun of 2,500 scenes that it has not seen, 2,000 to fit and 500 to judge
by: the share of variance explained, beside that of the same network before training. The features are the class token
and mean and maximum of the patches. The model is trained by `dvc --cd data/shapes/recipe repro dino`.
"""

from __future__ import annotations

import argparse

import torch
from torch import Tensor, nn
from transformers import ViTModel

from comat.models.loading import load_model
from comat.shapes.recipe.data import clean_examples, images, unit
from comat.shapes.recipe.dino import build
from comat.shapes.recipe.features import targets
from comat.shapes.world.scenes import COLOURS, NOUNS

SCENES, FITTED, RIDGE = 2_500, 2_000, 0.1


@torch.no_grad()
def features(model: nn.Module, pixels: Tensor) -> Tensor:
    """(N, 3 width + 1), with a constant."""
    rows = []
    for part in pixels.split(250):
        tokens = model(pixel_values=part).last_hidden_state
        patches = tokens[:, 1:]
        rows.append(torch.cat([tokens[:, 0], patches.mean(1), patches.amax(1), torch.ones(len(part), 1)], 1))
    return torch.cat(rows).double()


def explained(x: Tensor, y: Tensor) -> float:
    """R² of a ridge regression on the scenes that it was not fitted to, all targets together."""
    fit, held = x[:FITTED], x[FITTED:]
    weights = torch.linalg.solve(fit.T @ fit + RIDGE * torch.eye(fit.shape[1], dtype=fit.dtype), fit.T @ y[:FITTED])
    left = (held @ weights - y[FITTED:]).square().sum()
    return float(1 - left / (y[FITTED:] - y[:FITTED].mean(0)).square().sum())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="data/shapes/trained/dino")
    options = parser.parse_args()
    torch.manual_seed(0)
    trained = load_model(ViTModel, options.model, part="DINO", dtype=torch.float32, add_pooling_layer=False)
    scenes = clean_examples(SCENES, seed=77)
    pixels = unit(images(scenes, 64))
    counts = torch.tensor([targets(scene) for scene in scenes], dtype=torch.float64).unflatten(1, (len(COLOURS), -1))
    assert counts.shape[2] == len(NOUNS)
    print(f"{'':<10}{'colour':>8}{'noun':>8}{'both':>8}")
    for name, model in (("trained", trained), ("untrained", build())):
        x = features(model.eval(), pixels)
        found = [explained(x, y) for y in (counts.sum(2), counts.sum(1), counts.flatten(1))]
        print(f"{name:<10}{found[0]:>8.2f}{found[1]:>8.2f}{found[2]:>8.2f}")


if __name__ == "__main__":
    main()
