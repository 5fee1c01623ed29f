"""The models that the parameters name: which, at which revision, and which of their files are used."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from comat.params import Params

TEXT_ENCODER_FILES = ("config.json", "tokenizer.json", "tokenizer_config.json", "vocab.txt", "special_tokens_map.json")
"""Grounding DINO's own file holds the weights of its text encoder."""


@dataclass(frozen=True)
class ModelName:
    """A model as the parameters name it: by a hub id and a revision, or by a folder; no name, where none is used."""

    key: str  # the parameter, for example evaluate.clip_score.clip_model
    name: str | None
    revision: str | None
    own_vae: bool = True  # False where another autoencoder takes the place of the pipeline's own
    files: tuple[str, ...] = ()  # the only files used, of which the first must be there; none: all of hub layout

    @property
    def role(self) -> str:
        """The parameter without its section, but a judge's with the name of its subsection; no two are equal."""
        stage, _, rest = self.key.partition(".")
        if stage in ("evaluate", "train"):
            return rest.replace(".", "_")
        return self.key.rpartition(".")[2]


def named_models(params: Params) -> list[ModelName]:
    """Every model that the parameters can name. The revision of `x` or `x_model` is `x_revision` beside it."""
    return [
        ModelName("base_model", params.base_model, params.base_revision, own_vae=params.vae is None),
        ModelName("vae", params.vae, params.vae_revision),
        ModelName("captioner_model", params.captioner_model, params.captioner_revision),
        *_grounded_sam_models(params),
        ModelName("discriminator_model", params.discriminator_model, params.discriminator_revision),
        *_guards(params),
        *judges(params),
    ]


def _grounded_sam_models(params: Params) -> list[ModelName]:
    """The segmenter's models; SAM and the text encoder have a name of their own in Grounded-SAM alone."""
    section = params.grounded_sam if params.segmenter != "clipseg" else None
    files = section.files if params.segmenter == "grounded_sam" else None
    detector, sam = ((files.detector,), (files.sam,)) if files else ((), ())
    text, text_revision = (files.text_encoder, files.text_encoder_revision) if files else (None, None)
    name, revision = (section.sam_model, section.sam_revision) if section else (None, None)
    return [
        ModelName("segmenter_model", params.segmenter_model, params.segmenter_revision, files=detector),
        ModelName("grounded_sam.sam_model", name, revision, files=sam),
        ModelName("grounded_sam.files.text_encoder", text, text_revision, files=TEXT_ENCODER_FILES),
    ]


def _guards(params: Params) -> list[ModelName]:
    """The models of the guard; nameless where it does not need them."""
    own = params.train.guard
    features = (own.feature_model, own.feature_revision) if own.every else (None, None)
    clip = (own.clip_model, own.clip_revision) if own.every and own.metric == "clip_score" else (None, None)
    return [ModelName("train.guard.feature_model", *features), ModelName("train.guard.clip_model", *clip)]


JUDGES = {
    "t2i_compbench": ("vqa", "detector", "clip"),
    "tifa": ("vqa",),
    "dpg": ("vqa",),
    "geneval": ("detector", "clip"),
    "clip_score": ("clip",),
    "frechet": ("feature",),
    "fid": ("inception",),
}
"""Sections of `evaluate` → the models in them."""


def judges(params: Params) -> Iterator[ModelName]:
    """The models that evaluate; nameless where their benchmark is off."""
    for name, models in JUDGES.items():
        section = getattr(params.evaluate, name)
        for model in models:
            key = f"evaluate.{name}.{model}_model"
            if section is None:
                yield ModelName(key, None, None)
                continue
            files = (section.inception_file,) if name == "fid" else ()
            found = getattr(section, f"{model}_model"), getattr(section, f"{model}_revision")
            yield ModelName(key, *found, files=files)


def with_revisions(params: Params, revisions: Mapping[str, str | None]) -> Params:
    """The same parameters with the revisions of some models replaced, by the keys of `named_models`."""
    values = params.model_dump()
    for key, revision in revisions.items():
        *sections, name = key.split(".")
        place = values
        for section in sections:
            place = place[section]
        place[f"{name.removesuffix('_model')}_revision"] = revision
    return Params.model_validate(values)
