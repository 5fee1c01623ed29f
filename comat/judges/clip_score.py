"""CLIPScore (Hessel et al. 2021): how near an image and its prompt lie in CLIP's space."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from comat.judges.benchmark import Drawn, Score
from comat.judges.clip import Clip
from comat.judges.later import Later
from comat.storage.images import read_rgb


class ClipScore:
    """100 times the cosine similarity, not below 0: the scale of torchmetrics.

    Details: `cut`, 1 where the prompt is longer than CLIP reads.

    Torchmetrics itself gives the mean of a batch, not a score for every image, and 1.9 fails with transformers 5.
    """

    name = "clip_score"

    def __init__(self, clip: Later[Clip], batch_size: int) -> None:
        self.clip, self.batch_size = clip, batch_size
        self.evaluators = {"clip": clip.id}

    def covers(self, image: Drawn) -> bool:
        return True

    def scores(self, images: Sequence[Drawn], folder: Path) -> Iterator[Score]:
        for at in range(0, len(images), self.batch_size):
            part = images[at : at + self.batch_size]
            drawn = self.clip().images([read_rgb(folder / image.path) for image in part])
            asked = self.clip().texts([image.text for image in part])
            for image, cosine in zip(part, (drawn * asked).sum(1).tolist(), strict=True):
                yield Score(max(0.0, 100 * cosine), {"cut": float(self.clip().cuts(image.text))})
