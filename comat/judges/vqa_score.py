"""VQAScore (Lin et al. 2024): how likely a vision-language model answers that the image shows its prompt."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch

from comat.captioners.load import load_captioner
from comat.judges.benchmark import Drawn, Score, evaluator
from comat.params import OneCaptioner, VqaScoreParams
from comat.storage.images import read_rgb


class VqaScore:
    """The probability of the answer "Yes" to `Does this figure show "{prompt}"?`, in [0, 1]."""

    name = "vqa_score"

    def __init__(self, own: VqaScoreParams, batch_size: int, device: torch.device, dtype: torch.dtype) -> None:
        asked = OneCaptioner(
            captioner="vlm",
            captioner_model=own.vqa_model,
            captioner_revision=own.vqa_revision,
            captioner_question=own.vqa_question,
            captioner_answer=own.vqa_answer,
        )
        self.model, self.batch_size, self.device = load_captioner(asked, device, dtype), batch_size, device
        id = evaluator(own.vqa_model, own.vqa_revision)
        self.evaluators = {"vqa": f"{id}, a teacher of training" if own.same_as_teacher else id}

    def covers(self, image: Drawn) -> bool:
        return True

    @torch.no_grad()
    def scores(self, images: Sequence[Drawn], folder: Path) -> Iterator[Score]:
        for at in range(0, len(images), self.batch_size):
            part = images[at : at + self.batch_size]
            pixels = torch.from_numpy(np.stack([read_rgb(folder / image.path) for image in part]))
            pixels = pixels.permute(0, 3, 1, 2).float().to(self.device) / 255
            log_p, _ = self.model.log_likelihood(pixels, [image.text for image in part])
            for value in log_p.sum(1).exp().tolist():
                yield Score(value)
