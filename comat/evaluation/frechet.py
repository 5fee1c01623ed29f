"""The Fréchet distance between two sets of images, in the features of a model that took no part in training."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from scipy import linalg
from transformers import AutoModel

from comat.captioners.preprocess import Preprocess
from comat.errors import UserError
from comat.sampling import in_batches


def frechet_distance(a: np.ndarray, b: np.ndarray) -> float:
    """Heusel et al. 2017: |mu_a - mu_b|^2 + tr(C_a + C_b - 2 (C_a C_b)^(1/2)) for features a (N, D) and b (M, D).

    Raises:
        ValueError: if a set has fewer than two images or the numbers of features differ.
    """
    if min(len(a), len(b)) < 2 or a.shape[1] != b.shape[1]:
        raise ValueError(f"expected two sets of at least two images with equal features, got {a.shape} and {b.shape}")
    ca, cb = (np.atleast_2d(np.cov(x, rowvar=False)) for x in (a, b))
    # The trace of a matrix root is the sum of the roots of the eigenvalues; those of ca @ cb are real and not negative.
    root = np.sqrt(linalg.eigvals(ca @ cb).real.clip(min=0)).sum()
    return float(np.square(a.mean(0) - b.mean(0)).sum() + np.trace(ca) + np.trace(cb) - 2 * root)


class Features:
    """Pooled features of an image model in hub layout."""

    def __init__(self, model: str, revision: str | None, size: int) -> None:
        try:
            self.model = AutoModel.from_pretrained(
                model, revision=revision, dtype=torch.float32, use_safetensors=True
            ).eval()
        except (OSError, ValueError) as error:
            raise UserError(f"evaluate.feature_model {model!r}: {str(error).splitlines()[0][:300]}") from None
        self.preprocess = Preprocess(model, revision, size)

    @torch.no_grad()
    def __call__(self, images: Sequence[np.ndarray]) -> np.ndarray:
        """(H, W, 3) uint8 images → (N, D)."""
        rows = []
        for part in in_batches(images, 64, "features"):
            pixels = torch.from_numpy(np.stack(part)).permute(0, 3, 1, 2).float() / 255
            rows.append(self.model(pixel_values=self.preprocess(pixels, torch.float32)).pooler_output.flatten(1))
        return torch.cat(rows).numpy().astype(np.float64)


def clean_renders(texts: Sequence[str], size: int, seed: int) -> list[np.ndarray]:
    """A clean render of every prompt of the shapes world: the distribution a perfect painter would draw from."""
    from comat.randomness import python_random
    from comat.shapes.captions import parse_prompt
    from comat.shapes.render import render
    from comat.shapes.scenes import scene_for

    rng = python_random(seed, "clean renders")
    return [render(scene_for(parse_prompt(text), rng), size)[0] for text in texts]


def load_images(index: list[dict], model: str, folder: Path) -> list[np.ndarray]:
    from comat.images import read_rgb

    return [read_rgb(folder / entry["path"]) for entry in index if entry["model"] == model]
