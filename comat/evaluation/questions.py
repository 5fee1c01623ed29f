"""What the benchmarks that ask questions about images share."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

import numpy as np

from comat.judges.benchmark import Drawn
from comat.storage.images import read_rgb

Q = TypeVar("Q")


def asked(
    questions: Mapping[str, Q], images: Sequence[Drawn], folder: Path, batch_size: int
) -> Iterator[tuple[list[Q], list[np.ndarray]]]:
    """Batches of the images, in order: what is asked of each by its prompt, and its pixels (H, W, 3), uint8.

    Raises:
        UserError: if an image is missing or unreadable.
    """
    for at in range(0, len(images), batch_size):
        part = images[at : at + batch_size]
        yield [questions[image.text] for image in part], [read_rgb(folder / image.path) for image in part]
