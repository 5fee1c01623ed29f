"""The models that the parameters name: which, at which revision, and which of their files are used."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from comat.params import CAPTIONERS, CaptionerParams, EvaluateParams, GuardParams, Params, SegmenterParams

TEXT_ENCODER_FILES = ("config.json", "tokenizer.json", "tokenizer_config.json", "vocab.txt", "special_tokens_map.json")
"""Grounding DINO's own file holds the weights of its text encoder."""


JUDGES = {
    "t2i_compbench": ("vqa", "detector", "clip"),
    "tifa": ("vqa",),
    "dpg": ("vqa",),
    "dsg": ("vqa",),
    "geneval": ("detector", "clip"),
    "geneval2": ("vqa",),
    "clip_score": ("clip",),
    "hps_v2": ("clip",),
    "pick_score": ("clip",),
    "vqa_score": ("vqa",),
    "frechet": ("feature",),
    "fid": ("inception",),
}
"""Sections of `evaluate` → the models in them."""
VLM_JUDGES = ("geneval2", "vqa_score")
"""Those whose vqa model is a vision-language model, not BLIP."""
KINDS = {"vqa": ("blip",), "detector": ("grounding-dino",), "clip": ("clip",)}
"""Models of `evaluate` → what `model_type` in their config.json may be."""
CAPTIONER_KINDS = {"blip": ("blip",), "git": ("git",), "vlm": (), "clip_similarity": ("clip",)}
"""The same of captioners; a vlm may be of many kinds."""
SEGMENTER_KINDS = {
    "clipseg": ("clipseg",),
    "grounded_sam": (),  # its weights are single files
    "grounded_sam_hf": ("grounding-dino",),
    "sam3": ("sam3", "sam3_video"),
}
KEYS = (
    "base_model",
    "vae",
    "captioner_model",
    *(f"captioner.{place}.captioner_model" for place in range(CAPTIONERS)),
    "segmenter_model",
    "grounded_sam.sam_model",
    "grounded_sam.files.text_encoder",
    "discriminator_model",
    "train.guard.feature_model",
    "train.guard.clip_model",
    *(f"evaluate.{section}.{model}_model" for section, models in JUDGES.items() for model in models),
)
"""Every parameter that can name a model."""


def role_of(key: str) -> str:
    """The parameter without its section, but a judge's with the name of its subsection; no two are equal."""
    stage, _, rest = key.partition(".")
    if stage in ("evaluate", "train"):
        return rest.replace(".", "_")
    if stage == "captioner":  # one of several: captioner.0.captioner_model
        return f"captioner_{rest.partition('.')[0]}_model"
    return key.rpartition(".")[2]


@dataclass(frozen=True)
class ModelName:
    """A model as the parameters name it: by a hub id and a revision, or by a folder."""

    key: str  # the parameter, for example evaluate.clip_score.clip_model
    name: str
    revision: str | None
    own_vae: bool = True  # False where another autoencoder takes the place of the pipeline's own
    files: tuple[str, ...] = ()  # the only files used, of which the first must be there; none: all of hub layout
    kinds: tuple[str, ...] = ()  # what `model_type` in its config.json may be; none: anything

    @property
    def role(self) -> str:
        return role_of(self.key)


def named_models(params: Params) -> list[ModelName]:
    """Every model that the parameters name and use. The revision of `x` or `x_model` is `x_revision` beside it."""
    models = [ModelName("base_model", params.base_model, params.base_revision, own_vae=not params.vae)]
    if params.vae:
        models.append(ModelName("vae", params.vae, params.vae_revision))
    models += [
        *captioners(params),
        *_segmenters(params),
        ModelName(
            "discriminator_model",
            params.discriminator_model,
            params.discriminator_revision,
            kinds=("vit", "dinov2") if params.discriminator == "dino" else (),
        ),
        *_guards(params.train.guard),
        *judges(params.evaluate),
    ]
    return models


def captioners(params: CaptionerParams) -> Iterator[ModelName]:
    """The captioners' models, of one or of several."""
    for key, own in zip(params.captioner_keys, params.captioners, strict=True):
        kinds = CAPTIONER_KINDS[own.captioner]
        yield ModelName(key, own.captioner_model, own.captioner_revision, kinds=kinds)


def _segmenters(params: SegmenterParams) -> Iterator[ModelName]:
    """The segmenter's models; SAM and the text encoder have a name of their own in Grounded-SAM alone."""
    own = params.grounded_sam if params.segmenter in ("grounded_sam", "grounded_sam_hf") else None
    files = own.files if own and params.segmenter == "grounded_sam" else None
    detector, sam = ((files.detector,), (files.sam,)) if files else ((), ())
    kinds = () if files else SEGMENTER_KINDS[params.segmenter]
    yield ModelName("segmenter_model", params.segmenter_model, params.segmenter_revision, files=detector, kinds=kinds)
    if own:
        yield ModelName(
            "grounded_sam.sam_model", own.sam_model, own.sam_revision, files=sam, kinds=() if sam else ("sam",)
        )
    if files:
        text = (files.text_encoder, files.text_encoder_revision)
        yield ModelName("grounded_sam.files.text_encoder", *text, files=TEXT_ENCODER_FILES)


def _guards(own: GuardParams) -> Iterator[ModelName]:
    """The models that the guard needs, if it is on."""
    if own.every and own.feature_model:
        yield ModelName("train.guard.feature_model", own.feature_model, own.feature_revision)
    if own.every and own.metric == "clip_score" and own.clip_model:
        yield ModelName("train.guard.clip_model", own.clip_model, own.clip_revision, kinds=KINDS["clip"])


def judges(own: EvaluateParams) -> Iterator[ModelName]:
    """The models of the benchmarks that are on."""
    for name, models in JUDGES.items():
        section = getattr(own, name)
        for model in models if section else ():
            files = (section.inception_file,) if name == "fid" else ()
            kinds = CAPTIONER_KINDS["vlm"] if name in VLM_JUDGES else KINDS.get(model, ())
            found = getattr(section, f"{model}_model"), getattr(section, f"{model}_revision")
            yield ModelName(f"evaluate.{name}.{model}_model", *found, files=files, kinds=kinds)


def with_revisions(params: Params, revisions: Mapping[str, str | None]) -> Params:
    """The same parameters with the revisions of some models replaced, by the keys of `named_models`."""
    return _with(params, {f"{key.removesuffix('_model')}_revision": value for key, value in revisions.items()})


def with_names(params: Params, names: Mapping[str, str]) -> Params:
    """The same parameters with other models in the places of some, by the keys of `named_models`."""
    return _with(params, names)


def _with(params: Params, changes: Mapping[str, str | None]) -> Params:
    values = params.model_dump()
    for key, value in changes.items():
        *sections, name = key.split(".")
        place: Any = values
        for section in sections:
            place = place[int(section) if isinstance(place, list) else section]
        place[name] = value
    return Params.model_validate(values)
