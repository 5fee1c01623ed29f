"""The step of training and what surrounds it."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from comat.params.models import SamplingParams
from comat.params.section import Count, CountOrNone, LearningRate, Moment, Name, NotNegative, Positive, Section


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
    device_batch: Count  # samples that go through the denoiser at once; changes no result
    gradient_checkpointing: Literal["none", "decoder", "all"]  # what runs blocks again, not keeping activations
    checkpoint_every: Count  # iterations
    gradients_every: CountOrNone  # iterations between two measurements of each term's own gradient; 0: none
    max_skipped: Count  # non-finite steps in a row after which the run stops
    deterministic: bool  # algorithms that give equal bytes twice on one device, where torch has them
    guard: GuardParams
    preview: PreviewParams = PreviewParams(every=0, prompts=[])
    keep_every: CountOrNone = 0  # iterations between two LoRAs that are kept beside the last one; 0: none
    report_to: list[Literal["tensorboard", "wandb", "trackio", "dvclive"]] = Field([])  # loggers; changes no result


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
    def grounds_generated(self) -> bool:
        """Whether Eq. 4 and 5 are on the attention maps of generated images, as published."""
        return self.attribute_concentration and self.attribute_images == "generated"

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
        return self.concept_activation or self.lambda_adv > 0 or self.grounds_generated

    @property
    def mixed_latents(self) -> bool:
        """Whether the captioner reads denoised real images as well (App. A)."""
        return self.concept_activation and self.image_batch > 0


class OptimizationParams(Section):
    lora_rank: Count
    learning_rate: LearningRate
    learning_rate_schedule: Literal["constant", "linear", "cosine"] = "constant"  # of the LoRA, over train_steps
    adam_beta1: Moment
    adam_beta2: Moment
    weight_decay: NotNegative
    max_grad_norm: Positive
    discriminator_learning_rate: LearningRate
    discriminator_adam_beta1: Moment
    discriminator_adam_beta2: Moment
    discriminator_max_grad_norm: Positive
    train_steps: CountOrNone
