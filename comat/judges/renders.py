"""Clean renders of prompts of the shapes world: what a perfect painter would draw."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from comat.randomness import python_random
from comat.shapes.world.captions import parse_prompt
from comat.shapes.world.render import render
from comat.shapes.world.scenes import scene_for


def clean_renders(texts: Sequence[str], size: int, seed: int) -> Iterator[np.ndarray]:
    """A render (size, size, 3), uint8, of every prompt; it is drawn when it is asked for.

    Raises:
        ValueError: at a prompt that is not of the shapes world.
    """
    rng = python_random(seed, "clean renders")
    for text in texts:
        yield render(scene_for(parse_prompt(text), rng), size)[0]
