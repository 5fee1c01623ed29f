"""The base model, and the models that teach it: captioners, segmenters, discriminators."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Discriminator, Field, Tag, model_validator

from comat.params.section import DESCRIBE, PROMPT, Count, Name, Positive, Probability, Section
from comat.storage.yaml_files import shown


class GroundedSamFiles(Section):
    """What groundingdino-py and segment-anything read: weights as .pth files of hub ids or folders."""

    detector: Name  # file in segmenter_model
    detector_config: Name  # a configuration of groundingdino-py by file name, or the path of another
    sam: Name  # file in sam_model
    text_encoder: Name  # hub id or folder of the BERT whose configuration and tokenizer the detector uses
    text_encoder_revision: Name | None


class GroundedSamParams(Section):
    sam_model: Name
    sam_revision: Name | None
    box_threshold: Probability  # of a box's most probable token
    text_threshold: Probability  # of the mean over the tokens of the box's noun
    nms_threshold: Probability  # intersection over union from which the less probable of two boxes goes
    boxes_per_noun: Count  # of an image at most, the most probable ones
    files: GroundedSamFiles | None  # for segmenter grounded_sam


class Sam3Params(Section):
    threshold: Probability  # of an instance, times that of its noun being there at all
    nms_threshold: Probability  # intersection over union from which the less probable of two instances goes


class Seeded(Section):
    seed: Annotated[int, Field(ge=0, lt=2**63)]


class Computing(Section):
    device: Annotated[str, Field(pattern=r"^(auto|cpu|mps|cuda(:\d+)?)$")]
    precision: Literal["fp32", "bf16", "fp16"]  # arithmetic of the frozen models; LoRA weights stay in float32
    compile: bool  # sampling through torch.compile


class BaseModelParams(Computing):
    base_model: Name  # diffusers layout
    base_revision: Name | None
    vae: Name | None  # hub id or folder of another autoencoder
    vae_revision: Name | None


class SamplingParams(Seeded):
    resolution: Annotated[int, Field(ge=8, multiple_of=8)]  # px, training
    native_resolution: Annotated[int, Field(ge=8, multiple_of=8)]  # px, of the base model
    scheduler: Literal["model", "ddpm", "ddim", "euler"]
    sampling_steps: Annotated[int, Field(ge=1, le=1000)]  # T, of 1000 training timesteps
    guidance_scale: Annotated[float, Field(ge=1)]


class DrawingParams(SamplingParams, BaseModelParams):
    """What the base model draws by."""


DRAWN_BY = ("seed", "resolution", "sampling_steps", "guidance_scale", "precision")
"""The parameters that decide over an image whatever model draws it."""
DRAWN_BY_THE_RUN = ("scheduler", "vae")
"""And over one that the run's own model draws."""


CaptionerKind = Literal["blip", "git", "vlm", "clip_similarity"]
CAPTIONERS = 3
"""As many captioners may teach together."""


class OneCaptioner(Section):
    captioner: CaptionerKind
    captioner_model: Name
    captioner_revision: Name | None
    caption_prefix: str = ""  # put before the prompt and masked out of the loss
    captioner_question: str = DESCRIBE  # what vlm is asked; {prompt} stands for the prompt
    captioner_answer: Annotated[str, Field(min_length=1)] = PROMPT  # what is scored, of vlm

    @model_validator(mode="after")
    def _reads_the_prompt(self) -> Self:
        if self.captioner == "vlm" and (PROMPT in self.captioner_question) == (PROMPT in self.captioner_answer):
            raise ValueError(
                f"captioner_question is {shown(self.captioner_question)} and captioner_answer "
                f"{shown(self.captioner_answer)}: expected {PROMPT} in one of them, the question or the answer"
            )
        return self

    @model_validator(mode="after")
    def _is_read(self) -> Self:
        """Refuse what would be set and not read: it was meant for another captioner."""
        unread: dict[str, str] = {}
        if self.captioner != "vlm":
            why = f"captioner {self.captioner} is asked nothing; vlm is"
            unread |= dict.fromkeys(("captioner_question", "captioner_answer"), why)
        if self.captioner == "clip_similarity":
            unread["caption_prefix"] = "CLIP's similarity is of the prompt alone"
        elif self.asks:
            unread["caption_prefix"] = "nothing stands before the answer to a question about the prompt (VQAScore)"
        for name, why in unread.items():
            value, plain = getattr(self, name), OneCaptioner.model_fields[name].default
            if value != plain:
                raise ValueError(f"{name} is {shown(value)}: expected {shown(plain)}, since {why}")
        return self

    @property
    def column(self) -> str:
        """What it is called in curves.csv: a captioner, or what answers questions about the prompt."""
        return "vqa" if self.asks else self.captioner

    @property
    def reads_words(self) -> bool:
        """Whether it says of each word of a prompt how likely it is."""
        return self.captioner != "clip_similarity" and not self.asks

    @property
    def asks(self) -> bool:
        """Whether it is asked about the prompt, not for it: VQAScore."""
        return self.captioner == "vlm" and PROMPT not in self.captioner_answer


class WeightedCaptioner(OneCaptioner):
    """One of several captioners that teach together; its loss comes times `weight`."""

    weight: Positive = 1.0


class CaptionerParams(Section):
    """One captioner by the flat keys, or a list of several, each with keys of the same names and a weight."""

    captioner: Annotated[
        Annotated[CaptionerKind, Tag("(one)")]
        | Annotated[list[WeightedCaptioner], Field(min_length=1, max_length=CAPTIONERS), Tag("(several)")],
        Discriminator(lambda value: "(several)" if isinstance(value, list) else "(one)"),
    ]
    captioner_model: Name | None  # null where captioner is a list
    captioner_revision: Name | None
    caption_prefix: str  # put before the prompt and masked out of the loss
    captioner_question: str = DESCRIBE  # what vlm is asked; {prompt} stands for the prompt
    captioner_answer: Annotated[str, Field(min_length=1)] = PROMPT  # what is scored, of vlm

    @model_validator(mode="after")
    def _one_or_several(self) -> Self:
        if isinstance(self.captioner, list):
            if self.captioner_model or self.captioner_revision:
                raise ValueError(
                    f"captioner_model is {shown(self.captioner_model)}: expected null, since captioner is a list, "
                    "whose entries name their models"
                )
            for name in ("caption_prefix", "captioner_question", "captioner_answer"):
                value, plain = getattr(self, name), OneCaptioner.model_fields[name].default
                if value != plain:
                    raise ValueError(
                        f"{name} is {shown(value)}: expected {shown(plain)}, since captioner is a list, whose entries "
                        f"have a {name} of their own"
                    )
        elif self.captioner_model is None:
            raise ValueError("captioner_model is null: expected a hub id or folder")
        else:
            assert self.captioners
        return self

    @property
    def captioners(self) -> list[WeightedCaptioner]:
        """Those that teach, one or several."""
        if isinstance(self.captioner, list):
            return self.captioner
        assert self.captioner_model is not None
        own = {name: getattr(self, name) for name in OneCaptioner.model_fields}
        return [WeightedCaptioner.model_validate(own)]

    @property
    def captioner_keys(self) -> list[str]:
        """The parameters that name their models, in the same order."""
        if not isinstance(self.captioner, list):
            return ["captioner_model"]
        return [f"captioner.{place}.captioner_model" for place in range(len(self.captioner))]


class SegmenterParams(Section):
    segmenter: Literal["clipseg", "grounded_sam", "grounded_sam_hf", "sam3"]
    segmenter_model: Name  # of Grounded-SAM: Grounding DINO
    segmenter_revision: Name | None
    segmenter_threshold: Probability  # from which a pixel belongs to the noun
    grounded_sam: GroundedSamParams | None  # for segmenters grounded_sam and grounded_sam_hf
    sam3: Sam3Params | None = None  # for segmenter sam3

    @model_validator(mode="after")
    def _has_its_section(self) -> Self:
        if self.segmenter == "sam3" and self.sam3 is None:
            raise ValueError("sam3 is null: expected its section, since segmenter is sam3")
        if self.segmenter in ("grounded_sam", "grounded_sam_hf") and self.grounded_sam is None:
            raise ValueError(f"grounded_sam is null: expected its section, since segmenter is {self.segmenter}")
        if self.segmenter == "grounded_sam" and self.grounded_sam and self.grounded_sam.files is None:
            raise ValueError("grounded_sam.files is null: expected its section, since segmenter is grounded_sam")
        return self


class DiscriminatorParams(Section):
    discriminator: Literal["denoiser", "dino"]
    discriminator_model: Name
    discriminator_revision: Name | None
    discriminator_input: Literal["generated", "real_world"]  # what it is to call real: reference or image latents
