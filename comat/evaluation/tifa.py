"""TIFA (Hu et al. 2023): the share of multiple-choice questions about a prompt that its image answers rightly."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from comat.evaluation.questions import asked
from comat.judges.benchmark import Answer, Drawn, Score
from comat.judges.later import Later
from comat.judges.vqa import BlipVqa
from comat.samples.formats.tifa import Question, read


class Tifa:
    """A question is answered by the choice that BLIP finds likeliest. `path`: the file of questions."""

    name = "tifa"

    def __init__(self, path: Path, vqa: Later[BlipVqa], batch_size: int) -> None:
        found = read(path)
        self.questions, self.left_out = found.by_prompt, found.left_out
        self.vqa, self.batch_size = vqa, batch_size
        self.evaluators = {"vqa": vqa.id}

    def covers(self, image: Drawn) -> bool:
        return image.source == self.name and image.text in self.questions

    def scores(self, images: Sequence[Drawn], folder: Path) -> Iterator[Score]:
        """The share of right answers for every image, in order, with the answers.

        Raises:
            UserError: if an image is missing or unreadable.
        """
        for groups, pixels in asked(self.questions, images, folder, self.batch_size):
            found = self.vqa().log_likelihoods(pixels, [[(q.question, q.choices) for q in own] for own in groups])
            for questions, values in zip(groups, found, strict=True):
                yield tifa_score(questions, values)


def tifa_score(questions: Sequence[Question], log_likelihoods: Sequence[Sequence[float]]) -> Score:
    """The score of an image, in [0, 1], from the log-likelihood of every choice of every question of its prompt."""
    answers = []
    for question, values in zip(questions, log_likelihoods, strict=True):
        likeliest = question.choices[max(range(len(values)), key=values.__getitem__)]
        answers.append(Answer(question.question, question.element_type, likeliest, likeliest == question.answer))
    return Score(sum(answer.right for answer in answers) / len(answers), answers=tuple(answers))
