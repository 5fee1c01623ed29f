"""DPG-Bench (Hu et al. 2024) and DSG-1k: the share of yes-or-no questions about a prompt that its image fulfils.

Questions depend on each other as in a Davidsonian scene graph (Cho et al. 2024): whether the hat is red counts only if
there is a hat.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from comat.evaluation.questions import asked
from comat.judges.benchmark import Answer, Drawn, Score
from comat.judges.later import Later
from comat.judges.vqa import BlipVqa
from comat.samples.formats.dpg import Question, read


class Dpg:
    """The answer is yes where BLIP finds "yes" likelier than "no". `path`: the file of questions, also DSG-1k's."""

    def __init__(self, path: Path, vqa: Later[BlipVqa], batch_size: int, name: str = "dpg") -> None:
        self.name = name
        found = read(path)
        self.questions, self.left_out = found.by_prompt, found.left_out
        self.vqa, self.batch_size = vqa, batch_size
        self.evaluators = {"vqa": vqa.id}

    def covers(self, image: Drawn) -> bool:
        return image.source == self.name and image.text in self.questions

    def scores(self, images: Sequence[Drawn], folder: Path) -> Iterator[Score]:
        """The share of fulfilled questions for every image, in order, with the answers.

        Raises:
            UserError: if an image is missing or unreadable.
        """
        for groups, pixels in asked(self.questions, images, folder, self.batch_size):
            found = self.vqa().yes(pixels, [[question.question for question in own] for own in groups])
            for questions, probabilities in zip(groups, found, strict=True):
                yield dpg_score(questions, [p > 0.5 for p in probabilities])


def dpg_score(questions: Sequence[Question], answers: Sequence[bool]) -> Score:
    """The score of an image, in [0, 1]. Its answers are as given, and so the published categories take them."""
    said = [Answer(q.question, q.category, "yes" if a else "no", a) for q, a in zip(questions, answers, strict=True)]
    counted = fulfilled(questions, answers)
    return Score(sum(counted) / len(counted), answers=tuple(said))


def fulfilled(questions: Sequence[Question], answers: Sequence[bool]) -> list[bool]:
    """Which of a prompt's questions count as answered with yes: those whose parents do as well.

    Parents come first. Of one that does not, in a circle, the answer as it is counts, as in the published code.
    """
    counted: list[bool] = []
    for place, (question, answer) in enumerate(zip(questions, answers, strict=True)):
        counted.append(answer and all((counted if p < place else answers)[p] for p in question.parents))
    return counted
