"""GenEval 2 (Kamath et al. 2025): Soft-TIFA, how probably a vision-language model answers as the prompt wants it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from statistics import fmean, geometric_mean

import torch

from comat.evaluation.questions import asked
from comat.judges.benchmark import Answer, Drawn, Score, evaluator
from comat.judges.first_word import FirstWord
from comat.judges.later import Later
from comat.judges.pixels import as_pixels
from comat.params import GENEVAL2_MODEL, GenEval2Params
from comat.samples.formats.geneval2 import Asked, read


class GenEval2:
    """The geometric mean of its questions' probabilities (Soft-TIFA GM). `path`: the file of questions.

    Details: `arithmetic_mean`, of the same probabilities (Soft-TIFA AM).
    """

    name = "geneval2"

    def __init__(
        self, path: Path, own: GenEval2Params, batch_size: int, device: torch.device, dtype: torch.dtype
    ) -> None:
        self.asked, self.batch_size, self.device = read(path), batch_size, device
        id = evaluator(own.vqa_model, own.vqa_revision) + own.said
        self.vqa = Later(id, lambda: FirstWord(own.dialogue, device, dtype, GENEVAL2_MODEL))
        self.evaluators = {"vqa": id}

    def covers(self, image: Drawn) -> bool:
        return image.source == self.name and image.text in self.asked

    @torch.no_grad()
    def scores(self, images: Sequence[Drawn], folder: Path) -> Iterator[Score]:
        """The score of every image, in order, with the answers.

        Raises:
            UserError: if an image is missing or unreadable.
        """
        listed = {prompt: [one] for prompt, one in self.asked.items()}
        for groups, pixels in asked(listed, images, folder, self.batch_size):
            wanted = [own for (own,) in groups]
            shown = as_pixels(pixels, self.device)
            pairs = [
                (image, question, answer)
                for image, own in zip(shown, wanted, strict=True)
                for question, answer in own.vqa_list
            ]
            found = iter(self._probabilities(pairs))
            for own in wanted:
                yield geneval2_score(own, list(islice(found, len(own.vqa_list))))

    def _probabilities(self, pairs: Sequence[tuple[torch.Tensor, str, str]]) -> list[float]:
        found: list[float] = []
        for at in range(0, len(pairs), self.batch_size):
            images, questions, answers = zip(*pairs[at : at + self.batch_size], strict=True)
            found += self.vqa().probabilities(torch.stack(images), questions, answers).tolist()
        return found


def geneval2_score(own: Asked, probabilities: Sequence[float]) -> Score:
    """The score of an image, in [0, 1], from the probability of every question's answer."""
    answers = tuple(
        Answer(question, skill, f"{answer} ({p:.2f})", p)
        for (question, answer), skill, p in zip(own.vqa_list, own.skills, probabilities, strict=True)
    )
    geometric = 0.0 if 0.0 in probabilities else geometric_mean(probabilities)
    return Score(geometric, {"arithmetic_mean": fmean(probabilities)}, answers)
