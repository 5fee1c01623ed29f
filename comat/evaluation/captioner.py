"""The captioner of training as a judge: whether training reached its own goal, on prompts that it never saw."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import torch

from comat.captioners import Captioner
from comat.captioners.load import Mixture, teachers_of
from comat.judges.benchmark import Drawn, Score
from comat.judges.later import Later
from comat.judges.pixels import batches_of


class CaptionerScore:
    """The mean log-likelihood of a prompt's tokens, given the image (Eq. 2), in nats: at most 0.

    Of `clip_similarity` it is the cosine of image and prompt times CLIP's own scale, and no likelihood. Of several
    captioners the sum, each times its weight. It is the teacher itself that judges here, so that a gain is
    no proof of better images.
    """

    name = "captioner"

    def __init__(self, captioner: Later[Captioner | Mixture], batch_size: int, device: torch.device) -> None:
        self.captioner, self.batch_size, self.device = captioner, batch_size, device
        self.evaluators = {"captioner": captioner.id}

    def covers(self, image: Drawn) -> bool:
        return True

    @torch.no_grad()
    def scores(self, images: Sequence[Drawn], folder: Path) -> Iterator[Score]:
        for pixels, texts in batches_of(images, folder, self.batch_size, self.device):
            total = torch.zeros(len(texts), device=self.device)
            for teacher in teachers_of(self.captioner()):
                log_p, counts = teacher.captioner.log_likelihood(pixels, texts)
                total = total + teacher.weight * (log_p.sum(1) / counts.sum(1))
            for value in total.tolist():
                yield Score(value)
