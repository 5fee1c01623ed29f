"""What the models that judge hold and compute, benchmark by benchmark, on the meta device.

The stage `evaluate` asks one benchmark after the other; only the models of the one that is asked are held.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import torch
from transformers import BaseImageProcessor, BlipForQuestionAnswering, CLIPModel, GroundingDinoForObjectDetection

from comat.errors import UserError
from comat.estimate.cost import Cost
from comat.estimate.meta import emptied, meta_features, meta_model
from comat.estimate.seeing import (
    JUDGED,
    TOKENS,
    Seen,
    blank_ids,
    blank_images,
    captioned,
    detected,
    dialogued,
    on_meta,
    side_of,
    size,
)
from comat.judges import detector, inception
from comat.models.loading import loaded
from comat.models.names import ModelName, judges
from comat.params import FrechetParams, Params

IMAGES = "images"
"""That a benchmark judges. All other names say what its models do for that."""
ASKED, QUESTIONS, CHOICES = "images asked about", "questions", "choices"
DETECTIONS, COMPARED, TEXTS, READ, FEATURED = "detections", "images compared", "texts", "images read", "features"
CHOICE = 4
"""Tokens of an answer to choose from, taken as typical, with those that open and end it."""


@dataclass(frozen=True)
class Judge:
    """The models of a benchmark: role → bytes of weights; what is judged → the cost of one; what is not counted."""

    weights: Mapping[str, int] = field(default_factory=dict)
    costs: Mapping[str, Cost] = field(default_factory=dict)
    uncounted: tuple[str, ...] = ()

    def work(self, counted: Mapping[str, int]) -> float:
        """Operations for so many of each."""
        return sum(cost.flops * counted.get(what, 0) for what, cost in self.costs.items())

    def activations(self, batch: int, counted: Mapping[str, int]) -> float:
        """Bytes at once, of a batch of images; BLIP reads all questions of a batch together, as many as there are."""
        images = counted.get(ASKED) or 1
        each = {what: max(1.0, counted.get(what, 0) / images) for what in (QUESTIONS, CHOICES) if ASKED in self.costs}
        at_once = {what: batch * count for what, count in each.items()}
        at_once |= {DETECTIONS: min(batch, detector.CHUNK), TEXTS: 1}
        return max((at_once.get(what, batch) * cost.peak for what, cost in self.costs.items()), default=0.0)


def judging(p: Params) -> dict[str, Judge]:
    """Every benchmark that is on and asks a model. One whose configuration cannot be had is named as not counted."""
    found: dict[str, Judge] = {}
    for model in judges(p.evaluate):
        _, name, key = model.key.split(".")
        own, role = found.get(name, Judge()), key.removesuffix("_model")
        try:
            weights, costs, left = MODELS[role if name != "vqa_score" else name](p, name, model)
        except UserError as error:
            weights, costs, left = 0, {}, (f"{model.name}, a judge ({error})",)
        found[name] = Judge({**own.weights, role: weights}, {**own.costs, **costs}, own.uncounted + left)
    if p.evaluate.captioner:
        seen = captioned(p, learns=False)
        found["captioner"] = Judge({"captioner": seen.weights}, {READ: seen.cost}, seen.uncounted)
    return found


Found = tuple[int, Mapping[str, Cost], tuple[str, ...]]
"""Bytes of weights, what is judged → the cost of one, and what could not be counted."""


def _vqa(p: Params, name: str, own: ModelName) -> Found:
    """BLIP, which looks at an image once and reads each question with it; of GenEval 2 a vision-language model."""
    if name == "geneval2":
        return _dialogue(QUESTIONS, dialogued(p.dialogues[own.key], p.precision, p.resolution, JUDGED))
    model = meta_model(BlipForQuestionAnswering, own.key, own.name, own.revision, "fp32")
    shown = blank_images(model, side_of(model))
    states = torch.empty_like(model.vision_model.embeddings.position_embedding)  # one for each patch, and a first
    read = torch.empty(1, TOKENS, model.text_decoder.config.hidden_size, device="meta")

    def asked() -> torch.Tensor:
        # Each question comes with states of its own.
        said = model.text_encoder(blank_ids(1, TOKENS), encoder_hidden_states=states.clone()).last_hidden_state
        return model.text_decoder(input_ids=blank_ids(1, 1), encoder_hidden_states=said).logits

    costs = {
        ASKED: on_meta(lambda: model.vision_model(shown).last_hidden_state),
        QUESTIONS: on_meta(asked),
        CHOICES: on_meta(lambda: model.text_decoder(blank_ids(1, CHOICE), encoder_hidden_states=read.clone()).logits),
    }
    return size(model), costs, ()


def _detector(p: Params, name: str, own: ModelName) -> Found:
    settings, _ = loaded(
        own.name,
        "image processor",
        lambda: BaseImageProcessor.get_image_processor_dict(own.name, revision=own.revision),
    )
    model = meta_model(GroundingDinoForObjectDetection, own.key, own.name, own.revision, "fp32")
    seen = detected(model, settings["size"]["shortest_edge"])
    return seen.weights, {DETECTIONS: seen.cost}, ()


def _clip(p: Params, name: str, own: ModelName) -> Found:
    model = meta_model(CLIPModel, own.key, own.name, own.revision, "fp32")
    shown = blank_images(model, side_of(model))
    looked = on_meta(lambda: model.get_image_features(pixel_values=shown).pooler_output)
    read = on_meta(lambda: model.get_text_features(input_ids=blank_ids(1, TOKENS)).pooler_output)
    return size(model), {COMPARED: looked, TEXTS: read}, ()


def _vqa_score(p: Params, name: str, own: ModelName) -> Found:
    return _dialogue(READ, dialogued(p.dialogues[own.key], p.precision, p.resolution, JUDGED))


def _dialogue(what: str, seen: Seen) -> Found:
    return seen.weights, {what: seen.cost}, seen.uncounted


def _feature(p: Params, name: str, own: ModelName) -> Found:
    assert isinstance(p.evaluate.frechet, FrechetParams)  # it names the model
    model = meta_features(own.key, own.name, own.revision, "fp32")
    shown = blank_images(model, p.resolution)
    return size(model), {FEATURED: on_meta(lambda: model(pixel_values=shown).pooler_output)}, ()


def _inception(p: Params, name: str, own: ModelName) -> Found:
    model = emptied(inception.build, "fp32")
    shown = torch.empty(1, 3, inception.SIDE, inception.SIDE, device="meta")
    return size(model), {FEATURED: on_meta(lambda: model(shown))}, ()


MODELS: Mapping[str, Callable[[Params, str, ModelName], Found]] = {
    "vqa": _vqa,
    "detector": _detector,
    "clip": _clip,
    "vqa_score": _vqa_score,
    "feature": _feature,
    "inception": _inception,
}
