"""Benchmarks and their judges."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from comat.params.models import OneCaptioner
from comat.params.section import PROMPT, SHOWS, Count, Name, Section
from comat.storage.yaml_files import shown

ONE_WORD = f"{PROMPT} Answer in one word."


class VqaParams(Section):
    vqa_model: Name  # answers questions about images
    vqa_revision: Name | None


class Independent(Section):
    """A judge that may be a captioner of training as well."""

    same_as_teacher: bool = False  # true lets the captioner of training judge what it taught, and says so

    @property
    def said(self) -> str:
        """What stands behind its name in results."""
        return ", a teacher of training" if self.same_as_teacher else ""


class VlmParams(VqaParams, Independent):
    """A vision-language model that answers in words, as captioner vlm does."""

    def asked(self, question: str, answer: str) -> OneCaptioner:
        """The captioner that it is."""
        return OneCaptioner(
            captioner="vlm",
            captioner_model=self.vqa_model,
            captioner_revision=self.vqa_revision,
            captioner_question=question,
            captioner_answer=answer,
        )


GENEVAL2_MODEL = "evaluate.geneval2.vqa_model"
"""The parameter that names the model whose answers' first tokens are read."""


class GenEval2Params(VlmParams):
    """GenEval 2's questions, answered in one word."""

    @property
    def dialogue(self) -> OneCaptioner:
        return self.asked(ONE_WORD, "Yes")  # what it answers is not given


class VqaScoreParams(VlmParams):
    """VQAScore."""

    vqa_question: str = SHOWS
    vqa_answer: Annotated[str, Field(min_length=1)] = "Yes"

    @property
    def dialogue(self) -> OneCaptioner:
        return self.asked(self.vqa_question, self.vqa_answer)

    @model_validator(mode="after")
    def _asks(self) -> Self:
        if PROMPT not in self.vqa_question:
            raise ValueError(f"vqa_question is {shown(self.vqa_question)}: expected {PROMPT} in it")
        if PROMPT in self.vqa_answer:
            raise ValueError(
                f"vqa_answer is {shown(self.vqa_answer)}: expected no {PROMPT} in it, which is the question's"
            )
        return self


class T2ICompBenchParams(VqaParams):
    detector_model: Name
    detector_revision: Name | None
    clip_model: Name
    clip_revision: Name | None


class GenEvalParams(Section):
    detector_model: Name
    detector_revision: Name | None
    clip_model: Name  # names colours
    clip_revision: Name | None


class ClipScoreParams(Independent):
    """A CLIP that compares image and prompt; of hps_v2 and pick_score one that was tuned to votes of people."""

    clip_model: Name
    clip_revision: Name | None


class FrechetParams(Section):
    feature_model: Name  # whose features are compared; it must have no part in training
    feature_revision: Name | None


class FidParams(Section):
    inception_model: Name  # hub id or folder
    inception_revision: Name | None
    inception_file: Name  # its weights in safetensors
    resize: Literal["crop", "stretch"] = "crop"  # to a square: the middle, or all of it as published FIDs do


class EvaluateParams(Section):
    """The benchmarks, the main one first; null or false switches one off, and without any nothing is judged."""

    oracle: bool  # of the shapes world
    t2i_compbench: T2ICompBenchParams | None
    tifa: VqaParams | None
    dpg: VqaParams | None
    dsg: VqaParams | None = None
    geneval: GenEvalParams | None
    geneval2: GenEval2Params | None = None
    clip_score: ClipScoreParams | None
    hps_v2: ClipScoreParams | None = None
    pick_score: ClipScoreParams | None = None
    vqa_score: VqaScoreParams | None = None
    captioner: bool = False  # the captioner of training, which is no independent judge
    frechet: FrechetParams | None  # distance to clean renders of the shapes world
    fid: FidParams | None  # distance to samples.benchmarks.coco
    batch_size: Count  # images
    bootstrap: Count  # resamples
    grid_pairs: Count  # base/tuned pairs in each picture

    @property
    def any_prompt(self) -> bool:
        """Whether a benchmark is on that judges images of whatever prompt."""
        return bool(self.clip_score or self.hps_v2 or self.pick_score or self.vqa_score or self.captioner)
