"""`params.yaml`, typed: the paper's hyperparameters as flat keys, and one section for each stage."""

from __future__ import annotations

from collections.abc import Iterator
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Literal, Self, get_args

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Discriminator,
    Field,
    Tag,
    ValidationError,
    model_validator,
)

from comat.errors import UserError, clean
from comat.storage.yaml_files import read_bounded, shown

Probability = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[float, Field(gt=0)]
LearningRate = Annotated[float, Field(gt=0, le=1)]
NotNegative = Annotated[float, Field(ge=0)]
Count = Annotated[int, Field(ge=1, le=10**9)]
CountOrNone = Annotated[int, Field(ge=0, le=10**9)]


def _printable(name: str) -> str:
    if not name.strip() or not name.isprintable():
        raise ValueError("expected text that can be printed, not blanks alone (null for none)")
    return name


Name = Annotated[str, Field(min_length=1), AfterValidator(_printable)]  # hub id, file or folder
Moment = Annotated[float, Field(ge=0, lt=1)]


PROMPT = "{prompt}"
DESCRIBE = "Describe the image in one sentence."
SHOWS = f'Does this figure show "{PROMPT}"?'
"""VQAScore's question (Lin et al. 2024)."""


class Section(BaseModel):
    """A part of the parameters: unknown keys and wrong types are errors, and nothing changes after loading."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class CorporaParams(Section):
    fetch: list[Literal["t2i_compbench", "hrs", "abc6k"]]  # published corpora to get; [] gets none
    source: Name | None  # folder that holds their files already; null downloads them


class _Listed(Section):
    """Where prompts are listed: a file, a folder of such files, or a data set on the hub."""

    name: Name
    format: str
    path: Name  # of format hub: the data set's id
    column: Name = "prompt"  # that holds the prompt, in tables and objects
    delimiter: Annotated[str, Field(min_length=1, max_length=1)] | None = None  # of csv; null: what divides it best
    revision: Name | None = None  # of format hub: a commit, or refs/convert/parquet
    leave_out: list[str] = []  # files of a folder to leave alone: patterns such as *_6k.csv

    @model_validator(mode="after")
    def _of_format(self) -> Self:
        where = f"list {self.name}: format {self.format}"
        if self.delimiter is not None and self.format != "csv":
            raise ValueError(f"{where} has no delimiter to choose; remove delimiter")
        if (self.revision is None) == (self.format == "hub"):
            raise ValueError(
                f"{where} needs a revision, a commit of the data set or refs/convert/parquet: got null"
                if self.format == "hub"
                else f"{where} has no revision; remove revision"
            )
        return self


class PromptList(_Listed):
    """A list of prompts."""

    format: Literal["txt", "csv", "tsv", "json", "jsonl", "parquet", "hub"]


class PromptSource(_Listed):
    """A corpus of the pipeline: a list, or one of the published formats."""

    format: Literal["t2i_compbench", "hrs", "abc6k", "txt", "csv", "tsv", "json", "jsonl", "parquet", "hub"]
    split: Literal["train", "test"] = "train"  # test: held out. T2I-CompBench's files say it themselves
    sample: CountOrNone = 0  # prompts to draw by seed, of each category its share; 0 takes all
    hold_out: Moment = 0.0  # share of the prompts to hold out, drawn by seed from every category

    @model_validator(mode="after")
    def _sensible(self) -> Self:
        if self.format == "t2i_compbench" and (self.split != "train" or self.hold_out):
            raise ValueError(
                f"source {self.name}: the files of t2i_compbench say their split themselves; remove split and hold_out"
            )
        if self.split == "test" and self.hold_out:
            raise ValueError(f"source {self.name}: split is test, which holds all prompts out; remove hold_out")
        if self.format in ("t2i_compbench", "hrs", "abc6k", "txt") and self.column != "prompt":
            raise ValueError(f"source {self.name}: format {self.format} has no column to choose; remove column")
        return self


class PromptsParams(Section):
    sources: Annotated[list[PromptSource], Field(min_length=1)]
    decontaminate: bool  # drop training prompts that are evaluation prompts, or nearly; false: the paper's recipe
    evaluation: list[PromptList]  # evaluation prompts beside the sources' own held-out ones
    syntax: Literal["strip", "keep"]  # weights, networks and parameters of image tools: what the text encoder gets
    near_duplicate: Annotated[float, Field(gt=0, le=1)]  # Jaccard similarity of word 3-grams; 1 drops equal ones only

    @model_validator(mode="after")
    def _distinct(self) -> Self:
        names = [entry.name for entry in (*self.sources, *self.evaluation)]
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice:
            raise ValueError(f"two lists are named {twice!r}: the report tells them apart by their names")
        return self


class EntitiesParams(Section):
    spacy_model: Name
    own_filter: Name | None  # YAML file that adds to the project's list of filtered nouns, or keeps some of it
    batch_size: Count  # prompts
    processes: Count  # changes no result


class WarmupImagesParams(Section):
    count: CountOrNone  # images; prompts are drawn by seed from every category
    batch_size: Count  # images


class WarmupParams(Section):
    steps: CountOrNone  # optimizer steps; 0 passes the base UNet through, uncopied
    lora_rank: CountOrNone  # 0 fine-tunes all weights; LoRA is merged into the UNet that is written
    learning_rate: LearningRate
    weight_decay: NotNegative  # AdamW's
    max_grad_norm: Positive
    prompt_dropout: Probability  # share of the prompts that become the empty one, for classifier-free guidance
    batch_size: Count  # images


class ReferenceLatentsParams(Section):
    count: CountOrNone  # training prompts to draw; 0 takes all. Training uses the prompts that have latents
    batch_size: Count  # images
    shard_size: Count  # latents per file; 1024 of 512 px are 64 MB


class ImageLatentsParams(Section):
    images: Name | None  # folder or tar file of images; null for none, with image_batch 0
    captions: Name | None  # captions JSON of COCO or Karpathy, or a table; null: they stand beside the images
    split: Name | None = None  # of Karpathy's JSON: train (with restval), val or test; null takes all
    count: CountOrNone  # images; 0 takes all
    batch_size: Count  # images
    shard_size: Count  # latents per file; 1024 of 512 px are 64 MB

    @model_validator(mode="after")
    def _both(self) -> Self:
        if self.images is None and self.captions is not None:
            raise ValueError(f"images is null and captions {self.captions!r}: expected both, or null for captions too")
        return self


class PromptEmbeddingsParams(Section):
    store: bool  # encode every prompt once, beforehand: no later stage loads the text encoders
    shard_size: Count  # prompts per file; 256 of Stable Diffusion 3 are 700 MB


class GuardParams(Section):
    """The guard against reward hacking: docs/guard.md. Its models may be null while it is off."""

    every: CountOrNone  # iterations between two looks; 0 switches the guard off
    prompts: Annotated[int, Field(ge=2)]  # training prompts set apart: no step trains on them
    metric: Literal["oracle", "clip_score"]  # oracle: of the shapes world
    clip_model: Name | None  # for metric clip_score
    clip_revision: Name | None
    feature_model: Name | None  # its features measure the Fréchet distance to the original model's images
    feature_revision: Name | None
    keep: Literal["best", "last"]  # the LoRA to write: of the look with the highest score, or the last
    patience: CountOrNone  # looks in a row without a higher score after which training ends; 0: never

    @model_validator(mode="after")
    def _models(self) -> Self:
        needed = {"feature_model": True, "clip_model": self.metric == "clip_score"}
        missing = next((name for name, used in needed.items() if used and getattr(self, name) is None), None)
        if self.every and missing:
            raise ValueError(f"{missing} is null: expected a hub id or folder, since every is {self.every}")
        return self


class PreviewParams(Section):
    """Pictures of fixed prompts from fixed noise while training goes on: docs/watching.md."""

    every: CountOrNone  # iterations between two looks, one before the first and one after the last; 0: none
    prompts: list[Name]

    @model_validator(mode="after")
    def _has_prompts(self) -> Self:
        if self.every and not self.prompts:
            raise ValueError(f"prompts is []: expected a prompt or more, since every is {self.every}")
        return self


class TrainParams(Section):
    device_batch: Count  # samples that go through the UNet at once; changes no result
    gradient_checkpointing: Literal["none", "decoder", "all"]  # what runs blocks again, not keeping activations
    checkpoint_every: Count  # iterations
    gradients_every: CountOrNone  # iterations between two measurements of each term's own gradient; 0: none
    max_skipped: Count  # non-finite steps in a row after which the run stops
    deterministic: bool  # algorithms that give equal bytes twice on one device, where torch has them
    guard: GuardParams
    preview: PreviewParams = PreviewParams(every=0, prompts=[])
    keep_every: CountOrNone = 0  # iterations between two LoRAs that are kept beside the last one; 0: none
    report_to: list[Literal["tensorboard", "wandb", "trackio", "dvclive"]] = []  # loggers; changes no result


class CocoPrompts(Section):
    """Images with captions: the captions are drawn, one of each image, and FID compares with the images."""

    images: Name  # folder or tar file
    captions: Name | None = None  # captions JSON of COCO or Karpathy, or a table; null: they stand beside the images
    split: Name | None = None  # of Karpathy's JSON
    count: Count  # images, drawn by seed


class BenchmarkFiles(Section):
    """Files of published benchmarks, whose prompts are drawn beside the held-out ones: docs/evaluation.md."""

    tifa: Name | None  # JSON of questions and answers
    dpg: Name | None  # CSV of questions
    geneval: Name | None  # JSON Lines of metadata
    coco: CocoPrompts | None
    dsg: Name | None = None  # CSV of questions, DSG-1k's
    geneval2: Name | None = None  # JSON Lines of questions and answers


class SeedsParams(Section):
    """Images per prompt, by what the prompt is of."""

    held_out: Count  # the sources' own, T2I-CompBench's among them
    tifa: Count
    dpg: Count
    geneval: Count
    coco: Count
    dsg: Count = 1
    geneval2: Count = 1


class SamplesParams(Section):
    prompts: CountOrNone  # held-out prompts to draw by seed from every category; 0 takes all
    benchmarks: BenchmarkFiles
    seeds: Annotated[
        Annotated[Count, Tag("(a number)")] | Annotated[SeedsParams, Tag("(by benchmark)")],
        Discriminator(lambda value: "(by benchmark)" if isinstance(value, dict | SeedsParams) else "(a number)"),
    ]  # images per prompt
    batch_size: Count  # images
    attention_prompts: CountOrNone  # prompts, drawn so as well, whose attention maps are kept

    def seeds_of(self, source: str) -> int:
        """Images of each prompt of a source or benchmark. Of a number COCO's captions take one: FID reads no more."""
        if isinstance(self.seeds, SeedsParams):
            return getattr(self.seeds, source if source in SeedsParams.model_fields else "held_out")
        return 1 if source == "coco" else self.seeds


class VqaParams(Section):
    vqa_model: Name  # answers questions about images
    vqa_revision: Name | None


class _Independent(Section):
    """A judge that may be a captioner of training as well."""

    same_as_teacher: bool = False  # true lets the captioner of training judge what it taught, and says so

    @property
    def said(self) -> str:
        """What stands behind its name in results."""
        return ", a teacher of training" if self.same_as_teacher else ""


class VlmParams(VqaParams, _Independent):
    """A vision-language model that answers in words, as captioner vlm does."""


class VqaScoreParams(VlmParams):
    """VQAScore."""

    vqa_question: str = SHOWS
    vqa_answer: Annotated[str, Field(min_length=1)] = "Yes"

    @model_validator(mode="after")
    def _asks(self) -> Self:
        if PROMPT not in self.vqa_question:
            raise ValueError(f"vqa_question is {shown(self.vqa_question)}: expected {PROMPT} in it")
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


class ClipScoreParams(_Independent):
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
    geneval2: VlmParams | None = None
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
        if self.captioner == "vlm" and PROMPT not in self.captioner_question + self.captioner_answer:
            raise ValueError(
                f"captioner_question is {shown(self.captioner_question)} and captioner_answer "
                f"{shown(self.captioner_answer)}: expected {PROMPT} in one of them"
            )
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


class StepParams(SamplingParams):
    """What an iteration computes, Algorithm 1 and Eq. 6."""

    grad_steps: Count  # K of the T steps
    attribute_steps: CountOrNone  # r of the K steps

    concept_activation: bool
    caption_reduction: Literal["mean", "sum"]  # over the caption's tokens
    crop_jitter: bool
    attribute_images: Literal["generated", "real"] = "generated"  # whose attention maps, at which noise levels
    attribute_tokens: Literal["entity", "noun"] = "entity"  # the noun with its attributes, or alone
    attribute_loss: Literal["comat", "tokencompose"]
    attribute_reduction: Literal["sum", "mean"]  # over layers, sizes of maps and attribute steps
    attribute_layers: list[Name] | None  # names of attention layers, * for any part of one; null: the model's own
    alpha: NotNegative  # region level
    beta: NotNegative  # pixel level
    lambda_adv: NotNegative
    denoising_weight: NotNegative = 0.0  # of Eq. 1 on real images
    mixed_latent_t1: Annotated[int, Field(ge=0, le=999)]  # training timesteps
    mixed_latent_t2: Annotated[int, Field(ge=0, le=999)]

    global_batch: Count  # prompts per iteration, over all processes
    image_batch: CountOrNone  # real images with captions per iteration, over all processes

    @model_validator(mode="after")
    def _counts_fit(self) -> Self:
        if self.grad_steps > self.sampling_steps:
            raise ValueError(
                f"grad_steps is {self.grad_steps}: expected at most sampling_steps ({self.sampling_steps})"
            )
        if self.attribute_steps > self.grad_steps:
            raise ValueError(
                f"attribute_steps is {self.attribute_steps}: expected at most grad_steps ({self.grad_steps})"
            )
        if self.mixed_latent_t1 > self.mixed_latent_t2:
            raise ValueError(
                f"mixed_latent_t1 is {self.mixed_latent_t1}: expected at most mixed_latent_t2 ({self.mixed_latent_t2})"
            )
        return self

    @model_validator(mode="after")
    def _has_real_images(self) -> Self:
        asked = {
            "attribute_images is real": self.attribute_images == "real",
            f"denoising_weight is {self.denoising_weight:g}": self.denoising_weight > 0,
        }
        why = next((reason for reason, holds in asked.items() if holds), None)
        if why and self.image_batch == 0:
            raise ValueError(f"image_batch is 0: expected 1 or more real images an iteration, since {why}")
        return self

    @property
    def attribute_concentration(self) -> bool:
        """Whether Eq. 4 and 5 have any weight."""
        return (self.attribute_steps > 0 or self.attribute_images == "real") and (self.alpha > 0 or self.beta > 0)

    @property
    def grounds_real(self) -> bool:
        """Whether Eq. 4 and 5 are on the attention maps of real images."""
        return self.attribute_concentration and self.attribute_images == "real"

    @property
    def noises_real(self) -> bool:
        """Whether the denoiser learns from noised real images, by Eq. 1 or by its attention maps there."""
        return self.denoising_weight > 0 or self.grounds_real

    @property
    def generates(self) -> bool:
        """Whether any loss reads generated images."""
        return (
            self.concept_activation or self.lambda_adv > 0 or (self.attribute_concentration and not self.grounds_real)
        )

    @property
    def mixed_latents(self) -> bool:
        """Whether the captioner reads denoised real images as well (App. A)."""
        return self.concept_activation and self.image_batch > 0


class OptimizationParams(Section):
    lora_rank: Count
    learning_rate: LearningRate
    adam_beta1: Moment
    adam_beta2: Moment
    weight_decay: NotNegative
    max_grad_norm: Positive
    discriminator_learning_rate: LearningRate
    discriminator_adam_beta1: Moment
    discriminator_adam_beta2: Moment
    discriminator_max_grad_norm: Positive
    train_steps: CountOrNone


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

    @model_validator(mode="after")
    def _no_teacher_judges(self) -> Self:
        teachers = {one.captioner_model for one in self.captioners}
        for name in EvaluateParams.model_fields:
            judge = getattr(self.evaluate, name)
            if not isinstance(judge, _Independent) or judge.same_as_teacher:
                continue
            key, model = next((key, value) for key, value in judge if key.endswith("_model"))
            if model in teachers:
                raise ValueError(
                    f"evaluate.{name}.{key} is {shown(model)}, which is a captioner of training too: "
                    "expected another model, for nothing is judged by what taught it; or set same_as_teacher to true"
                )
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
