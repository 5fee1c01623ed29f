"""T2I-CompBench (Huang et al. 2023): attributes by BLIP-VQA, spatial relations by a detector, the rest by CLIPScore."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path

import numpy as np
from spacy.language import Language
from spacy.tokens import Doc

from comat.entities.parse import ParsedEntity, entities_of
from comat.judges.benchmark import Drawn, Score
from comat.judges.clip import Clip
from comat.judges.detector import Instance, NounDetector
from comat.judges.later import Later
from comat.judges.spatial import Relation, relation_in, spatial_score
from comat.judges.vqa import BlipVqa
from comat.storage.images import read_rgb

ATTRIBUTES = ("color", "shape", "texture")
CATEGORIES = (*ATTRIBUTES, "spatial", "non_spatial", "complex")

_ARTICLE = re.compile(r"\b(?:a|an|the)\s+$", re.IGNORECASE)


@dataclass(frozen=True)
class Plan:
    """What is asked of an image of one prompt; the score is the mean of the parts that are."""

    questions: tuple[str, ...] = ()
    relation: Relation | None = None
    caption: str | None = None


class T2ICompBench:
    """Every category by its own definition; see docs/benchmarks.md. The parser finds the noun phrases."""

    name = "t2i_compbench"

    def __init__(
        self,
        vqa: Later[BlipVqa],
        detector: Later[NounDetector],
        clip: Later[Clip],
        parser: Language,
        batch_size: int,
    ) -> None:
        self.vqa, self.detector, self.clip, self.parser = vqa, detector, clip, parser
        self.batch_size = batch_size
        parser_id = f"{parser.meta['lang']}_{parser.meta['name']}@{parser.meta['version']}"
        self.evaluators = {"vqa": vqa.id, "detector": detector.id, "clip": clip.id, "parser": parser_id}
        self._plans: dict[tuple[str, str], Plan] = {}

    def covers(self, image: Drawn) -> bool:
        """Whether its category is one of the six, and the prompt names what that category asks about."""
        return image.category in CATEGORIES and self._plan(image) != Plan()

    def scores(self, images: Sequence[Drawn], folder: Path) -> Iterator[Score]:
        """A score for every image, in order: in [0, 1], but in [-1, 1] for non_spatial, where it is a cosine.

        Raises:
            UserError: if an image is missing or unreadable.
        """
        for at in range(0, len(images), self.batch_size):
            part = images[at : at + self.batch_size]
            pixels, plans = [read_rgb(folder / image.path) for image in part], [self._plan(image) for image in part]
            yield from self._scores(pixels, plans)

    def _plan(self, image: Drawn) -> Plan:
        key = (image.category, image.text)
        if key not in self._plans:
            self._plans[key] = plan_of(image.category, self.parser(image.text))
        return self._plans[key]

    def _scores(self, images: Sequence[np.ndarray], plans: Sequence[Plan]) -> Iterator[Score]:
        """A model that no plan of the batch asks is not loaded."""
        asked = any(plan.questions for plan in plans)
        answers = self.vqa().yes(images, [plan.questions for plan in plans]) if asked else [[] for _ in plans]
        related = [(plan.relation.first, plan.relation.second) if plan.relation else () for plan in plans]
        boxes = self.detector().instances(images, related) if any(related) else [[] for _ in plans]
        cosines = self._cosines(images, [plan.caption for plan in plans])
        for image, plan, own, found, cosine in zip(images, plans, answers, boxes, cosines, strict=True):
            yield _score(plan, own, found, cosine, max(image.shape[:2]))

    def _cosines(self, images: Sequence[np.ndarray], captions: Sequence[str | None]) -> list[float | None]:
        """Of each image and its caption, where it has one."""
        given = [place for place, caption in enumerate(captions) if caption]
        found: list[float | None] = [None] * len(images)
        if given:
            seen = self.clip().images([images[place] for place in given])
            read = self.clip().texts([caption for caption in captions if caption])
            for place, cosine in zip(given, (seen * read).sum(1).tolist(), strict=True):
                found[place] = cosine
        return found


def _score(
    plan: Plan, answers: Sequence[float], boxes: Sequence[Sequence[Instance]], cosine: float | None, side: int
) -> Score:
    """answers: the probability of "yes" to each question. boxes: of the relation's two nouns. side: the longer, px."""
    parts: dict[str, float] = {}
    if plan.questions:
        parts["attributes"] = prod(answers)
    if plan.relation:
        first, second = (found[0] if found else None for found in boxes)
        parts["spatial"] = spatial_score(plan.relation.name, first, second, side)
    if cosine is not None:
        parts["clip"] = cosine
    said = [f"{text} {p:.4f}" for text, p in zip(plan.questions, answers, strict=True)]
    return Score(sum(parts.values()) / len(parts), {**parts, "answers": " ".join(said)})


def plan_of(category: str, prompt: Doc) -> Plan:
    """What is asked about a parsed prompt of one of the `CATEGORIES`."""
    text, entities = prompt.text, entities_of(prompt)
    relation = relation_in(text, entities)
    if category == "spatial":
        return Plan(relation=relation)
    if category == "non_spatial":
        return Plan(caption=text)
    questions = questions_of(text, entities, relation)
    if category in ATTRIBUTES:
        return Plan(questions)
    return Plan(questions, relation, " ".join(token.text for token in prompt if token.pos_ != "ADJ"))


def questions_of(text: str, entities: Sequence[ParsedEntity], relation: Relation | None) -> tuple[str, ...]:
    """One question for each noun phrase, "a red ball?"; none for the nouns of the relation itself ("on the top of")."""
    start, end = relation.span if relation else (0, 0)
    asked = [entity for entity in entities if not start <= entity.noun_span[0] < end]
    return tuple(f"{noun_phrase(text, entity)}?" for entity in asked)


def noun_phrase(text: str, entity: ParsedEntity) -> str:
    """The noun with its article and all before it; attributes from elsewhere come first: "the blue car"."""
    noun = entity.noun_span
    start, _ = min([noun, *entity.attribute_spans, *entity.numeral_spans])
    own = text[start : noun[1]]
    elsewhere = [
        word for word, span in zip(entity.attributes, entity.attribute_spans, strict=True) if span[0] > noun[0]
    ]
    if elsewhere:
        return " ".join(["the", *elsewhere, own])
    article = _ARTICLE.search(text[:start])
    return (article[0] if article else "") + own
