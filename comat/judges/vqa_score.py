"""VQAScore (Lin et al. 2024): how likely a vision-language model answers that the image shows its prompt."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import torch

from comat.captioners.load import load_captioner
from comat.judges.benchmark import Drawn, Score, evaluator
from comat.judges.later import Later
from comat.judges.pixels import batches_of
from comat.params import VqaScoreParams


class VqaScore:
    """The probability of the answer "Yes" to `Does this figure show "{prompt}"?`, in [0, 1]."""

    name = "vqa_score"

    def __init__(self, own: VqaScoreParams, batch_size: int, device: torch.device, dtype: torch.dtype) -> None:
        id = evaluator(own.vqa_model, own.vqa_revision)
        self.model = Later(id, lambda: load_captioner(own.dialogue, device, dtype, key="evaluate.vqa_score.vqa_model"))
        self.batch_size, self.device = batch_size, device
        self.evaluators = {"vqa": id + own.said}

    def covers(self, image: Drawn) -> bool:
        return True

    @torch.no_grad()
    def scores(self, images: Sequence[Drawn], folder: Path) -> Iterator[Score]:
        for pixels, texts in batches_of(images, folder, self.batch_size, self.device):
            log_p, _ = self.model().log_likelihood(pixels, texts)
            for value in log_p.sum(1).exp().tolist():
                yield Score(value)
