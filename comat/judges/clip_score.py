"""CLIPScore (Hessel et al. 2021): how near an image and its prompt lie in CLIP's space; of CLIPs tuned to votes too."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from comat.judges.benchmark import Drawn, Score
from comat.judges.clip import Clip
from comat.judges.later import Later
from comat.storage.images import read_rgb

SCORES: dict[str, Callable[[float, Clip], float]] = {
    "clip_score": lambda cosine, _: max(0.0, 100 * cosine),  # the scale of torchmetrics
    "hps_v2": lambda cosine, _: 100 * cosine,  # Wu et al. 2023, as their tables have it
    "pick_score": lambda cosine, clip: clip.scale * cosine,  # Kirstain et al. 2023
}
"""From the cosine of image and prompt to each published score."""


class ClipScore:
    """The cosine similarity of image and prompt, on the scale of the score that is named.

    Details: `cut`, 1 where the prompt is longer than CLIP reads.

    Torchmetrics itself gives the mean of a batch, not a score for every image, and 1.9 fails with transformers 5.
    """

    def __init__(self, clip: Later[Clip], batch_size: int, name: str = "clip_score") -> None:
        self.clip, self.batch_size, self.name = clip, batch_size, name
        self.evaluators = {"clip": clip.id}

    def covers(self, image: Drawn) -> bool:
        return True

    def scores(self, images: Sequence[Drawn], folder: Path) -> Iterator[Score]:
        for at in range(0, len(images), self.batch_size):
            part = images[at : at + self.batch_size]
            drawn = self.clip().images([read_rgb(folder / image.path) for image in part])
            asked = self.clip().texts([image.text for image in part])
            for image, cosine in zip(part, (drawn * asked).sum(1).tolist(), strict=True):
                yield Score(SCORES[self.name](cosine, self.clip()), {"cut": float(self.clip().cuts(image.text))})
