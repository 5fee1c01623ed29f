"""The captioner of training as a judge: whether training reached its own goal, on prompts that it never saw."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch

from comat.captioners import Captioner
from comat.captioners.load import Mixture, teachers_of
from comat.judges.benchmark import Drawn, Score
from comat.storage.images import read_rgb


class CaptionerScore:
    """The mean log-likelihood of a prompt's tokens, given the image (Eq. 2), in nats: at most 0.

    Of several captioners the sum, each times its weight. It is the teacher itself that judges here, so that a gain is
    no proof of better images.
    """

    name = "captioner"

    def __init__(self, captioner: Captioner | Mixture, id: str, batch_size: int, device: torch.device) -> None:
        self.captioner, self.batch_size, self.device = captioner, batch_size, device
        self.evaluators = {"captioner": id}

    def covers(self, image: Drawn) -> bool:
        return True

    @torch.no_grad()
    def scores(self, images: Sequence[Drawn], folder: Path) -> Iterator[Score]:
        for at in range(0, len(images), self.batch_size):
            part = images[at : at + self.batch_size]
            pixels = torch.from_numpy(np.stack([read_rgb(folder / image.path) for image in part]))
            pixels = pixels.permute(0, 3, 1, 2).float().to(self.device) / 255
            total = torch.zeros(len(part), device=self.device)
            for teacher in teachers_of(self.captioner):
                log_p, counts = teacher.captioner.log_likelihood(pixels, [image.text for image in part])
                total = total + teacher.weight * (log_p.sum(1) / counts.sum(1))
            for value in total.tolist():
                yield Score(value)
