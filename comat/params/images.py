"""What is made before training: warm-up, reference latents, image latents, prompt embeddings."""

from __future__ import annotations

from typing import Self

from pydantic import model_validator

from comat.params.section import Count, CountOrNone, LearningRate, Name, NotNegative, Positive, Probability, Section


class WarmupImagesParams(Section):
    count: CountOrNone  # images; prompts are drawn by seed from every category
    batch_size: Count  # images


class WarmupParams(Section):
    steps: CountOrNone  # optimizer steps; 0 passes the base's denoiser through, uncopied
    lora_rank: CountOrNone  # 0 fine-tunes all weights; LoRA is merged into the denoiser that is written
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
