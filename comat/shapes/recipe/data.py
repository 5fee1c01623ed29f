"""Sets of rendered scenes with their captions."""

from __future__ import annotations

import random
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from comat.shapes.world.captions import describe
from comat.shapes.world.render import render
from comat.shapes.world.scenes import NOUNS, Scene, Spec, sample_spec, scene_for

CATEGORIES = ("single", "color", "spatial", "counting", "complex")
WEIGHTS = (1, 3, 3, 2, 2)


@dataclass(frozen=True)
class Example:
    """A scene, what its caption says of it, and the caption."""

    scene: Scene
    spec: Spec
    caption: str


def clean_examples(count: int, seed: int, weights: tuple[int, ...] = WEIGHTS) -> list[Example]:
    """Uniform scenes with captions that say everything."""
    rng = random.Random(f"clean {seed}")
    categories = rng.choices(CATEGORIES, weights, k=count)
    specs = [sample_spec(category, rng) for category in categories]
    return [Example(scene_for(spec, rng), spec, describe(spec)) for spec in specs]


def images(examples: list[Example], size: int) -> Tensor:
    """Renders as (N, 3, size, size) uint8."""
    rows = np.empty((len(examples), size, size, 3), np.uint8)
    for row, example in enumerate(tqdm(examples, desc=f"render {size} px", leave=False)):
        rows[row] = render(example.scene, size)[0]
    return torch.from_numpy(rows).permute(0, 3, 1, 2).contiguous()


def noun_masks(example: Example, size: int) -> np.ndarray:
    """(nouns, size, size) bool: the union of the objects of each noun of the world."""
    masks = np.zeros((len(NOUNS), size, size), bool)
    for o, mask in zip(example.scene.objects, render(example.scene, size)[1], strict=True):
        masks[NOUNS.index(o.noun)] |= mask
    return masks


def unit(rows: Tensor) -> Tensor:
    """uint8 images to float32 in [-1, 1]."""
    return rows.float() / 127.5 - 1


def to_rgb(image: Tensor) -> np.ndarray:
    """A (3, H, W) image in [-1, 1] to (H, W, 3) uint8."""
    return ((image.clamp(-1, 1) + 1) * 127.5).round().byte().permute(1, 2, 0).numpy()
