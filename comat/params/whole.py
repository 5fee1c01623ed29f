"""All parameters, and how `params.yaml` is read."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Self, get_args

from pydantic import BaseModel, ValidationError, model_validator

from comat.errors import UserError, clean
from comat.params.evaluation import EvaluateParams, Independent
from comat.params.images import (
    ImageLatentsParams,
    PromptEmbeddingsParams,
    ReferenceLatentsParams,
    WarmupImagesParams,
    WarmupParams,
)
from comat.params.models import CaptionerParams, DiscriminatorParams, DrawingParams, OneCaptioner, SegmenterParams
from comat.params.prompts import CorporaParams, EntitiesParams, PromptsParams
from comat.params.samples import SamplesParams
from comat.params.section import Section
from comat.params.training import OptimizationParams, StepParams, TrainParams
from comat.storage.yaml_files import read_bounded, shown


class Params(OptimizationParams, StepParams, DiscriminatorParams, SegmenterParams, CaptionerParams, DrawingParams):
    """Everything that `params.yaml` holds: the flat keys, and a section for each stage.

    A function takes the class of the flat keys or the section that it needs; only what runs a stage takes all.
    """

    corpora: CorporaParams
    prompts: PromptsParams
    entities: EntitiesParams
    warmup_images: WarmupImagesParams
    warmup: WarmupParams
    reference_latents: ReferenceLatentsParams
    image_latents: ImageLatentsParams
    prompt_embeddings: PromptEmbeddingsParams
    train: TrainParams
    samples: SamplesParams
    evaluate: EvaluateParams

    @property
    def discriminator_is_the_base(self) -> bool:
        """Whether the discriminator starts from the base model, text encoders and all."""
        own = (self.discriminator_model, self.discriminator_revision)
        return self.discriminator == "denoiser" and own == (self.base_model, self.base_revision)

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.image_latents.images is None:
            if self.image_batch:
                raise ValueError(f"image_batch is {self.image_batch}: expected 0 where image_latents.images is null")
            if self.discriminator_input == "real_world":
                raise ValueError("discriminator_input is real_world, which needs image_latents.images: got null")
        own = ("tifa", "dpg", "dsg", "geneval", "geneval2")
        for name, file in {**{name: name for name in own}, "fid": "coco"}.items():
            if getattr(self.evaluate, name) and not getattr(self.samples.benchmarks, file):
                raise ValueError(f"samples.benchmarks.{file} is null, but evaluate.{name} needs it: give both or none")
        return self

    @property
    def teachers(self) -> dict[str, OneCaptioner]:
        """The captioners of training by the parameters that name their models."""
        return dict(zip(self.captioner_keys, self.captioners, strict=True))

    @property
    def dialogues(self) -> dict[str, OneCaptioner]:
        """What is asked about images, captioners and judges, by the parameters that name their models."""
        found = {key: own for key, own in self.teachers.items() if own.captioner == "vlm"}
        asked = {"geneval2": self.evaluate.geneval2, "vqa_score": self.evaluate.vqa_score}
        return found | {f"evaluate.{name}.vqa_model": own.dialogue for name, own in asked.items() if own}

    @property
    def independent(self) -> dict[str, str]:
        """The models that judge, or stop training, and may not be what taught, by the parameters that name them."""
        sections = {f"evaluate.{name}": section for name, section in self.evaluate}
        if self.train.guard.every:
            sections["train.guard"] = self.train.guard
        return {
            f"{name}.{key}": value
            for name, section in sections.items()
            if isinstance(section, Section) and not getattr(section, "same_as_teacher", False)
            for key, value in section
            if key.endswith("_model") and value
        }

    def no_teacher_judges(self, sums: Mapping[str, object]) -> None:
        """See that nothing is judged by what taught it.

        Args:
            sums: what tells the models of parameters apart; equal values are one model.

        Raises:
            UserError: naming the judge.
        """
        teachers = {sums[key]: key for key in self.teachers if key in sums}
        for key, model in self.independent.items():
            if key in sums and sums[key] in teachers:
                raise UserError(
                    f"{key} is {shown(model)}, which is a captioner of training too ({teachers[sums[key]]}): expected "
                    "another model, for nothing is judged by what taught it"
                    + ("; or set same_as_teacher to true" if key.rpartition(".")[0] in self._may_be_teachers else "")
                )

    @property
    def _may_be_teachers(self) -> set[str]:
        return {f"evaluate.{name}" for name, section in self.evaluate if isinstance(section, Independent)}

    @model_validator(mode="after")
    def _no_teacher_judges(self) -> Self:
        named = {key: own.captioner_model for key, own in self.teachers.items()} | self.independent
        try:
            self.no_teacher_judges({key: _place(model) for key, model in named.items()})
        except UserError as error:
            raise ValueError(str(error)) from None
        return self

    @model_validator(mode="after")
    def _something_to_learn_from(self) -> Self:
        if self.warmup.steps and not self.warmup_images.count:
            raise ValueError(
                f"warmup.steps is {self.warmup.steps}, but warmup_images.count is 0: it needs images; set both or none"
            )
        if self.train_steps and not (self.generates or self.noises_real):
            raise ValueError(
                f"train_steps is {self.train_steps}, but concept_activation is false, attribute_steps, or alpha and "
                "beta, are 0, and so are lambda_adv and denoising_weight: nothing would be learned; set one of them, "
                "or train_steps to 0"
            )
        guard, latents = self.train.guard, self.reference_latents.count
        if guard.every and 0 < latents <= guard.prompts:
            raise ValueError(
                f"reference_latents.count is {latents}: expected more than train.guard.prompts ({guard.prompts}), "
                "which sets prompts apart that no step trains on"
            )
        return self


def _place(model: str) -> str | Path:
    """A hub id as it stands; of a folder where it is, however it is written."""
    return Path(model).resolve() if Path(model).is_dir() else model


def load(path: str | Path = "params.yaml") -> Params:
    """Read and check a parameter file.

    Raises:
        UserError: naming the key, its value and what is allowed, for the first thing that is wrong.
        FileNotFoundError: if there is no such file.
    """
    try:
        text = Path(path).read_text(encoding="utf-8")
    except FileNotFoundError:
        raise FileNotFoundError(f"{path}: no such parameter file; run in the project's root or copy a preset") from None
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not readable as YAML: {error}") from None
    values = read_bounded(str(path), text)
    if not isinstance(values, dict):
        raise UserError(f"{path}: expected keys and values, got {type(values).__name__}")
    try:
        return Params.model_validate(values)
    except ValidationError as error:
        raise UserError(f"{path}: {_first(error)}") from None


def _first(error: ValidationError) -> str:
    """The first problem as one line: key, value, what is allowed."""
    problems = error.errors(include_url=False)
    # A misspelt key is one that is missing as well.
    problem = next((found for found in problems if found["type"] == "extra_forbidden"), problems[0])
    # Which of two kinds of value it was taken for is no part of the key.
    place = [str(part) for part in problem["loc"] if not str(part).startswith("(")]
    key = clean(".".join(place), 200)
    if problem["type"] == "extra_forbidden":
        like = _nearest(place)
        hint = f"did you mean {like}?" if like else "see the preset of the same name for those there are"
        return f"{key} (= {shown(problem['input'])}) is no parameter; {hint}"
    if problem["type"] == "missing":
        return f"{key} is missing; copy it from a preset"
    message = problem["msg"].removeprefix("Value error, ")
    return f"{key} is {shown(problem['input'])}: {clean(message, 500)}" if key else clean(message, 500)


def _nearest(place: list[str]) -> str | None:
    """The parameter that an unknown one is most like: of its own section, then of the others."""
    known = [".".join(path) for path in _paths(Params)]
    key = ".".join(part for part in place if not part.isdigit())
    section = key.rpartition(".")[0]
    beside = [name for name in known if name.rpartition(".")[0] == section]
    found = get_close_matches(key, beside, 1) or [name for name in known if name.rpartition(".")[2] == place[-1]]
    return next(iter(found or get_close_matches(key, known, 1)), None)


def _paths(kind: object, above: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """The keys of a section and of those within it, lists and nulls aside."""
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        for name, field in kind.model_fields.items():
            yield (*above, name)
            yield from _paths(field.annotation, (*above, name))
        return
    for part in get_args(kind):
        yield from _paths(part, above)
