"""What each iteration trains on: a function of the seed and the iteration alone."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from comat.errors import UserError
from comat.method.attribute_concentration import Entity
from comat.method.step import Batch
from comat.params import Params
from comat.randomness import generator
from comat.storage.tables import ENTITIES, PROMPTS, read_table
from comat.storage.tensor_store import TensorStore
from comat.training.guard import set_apart


def columns_of(tokens: Sequence[Sequence[int]]) -> tuple[int, ...]:
    """The columns of the cross-attention maps where an entity stands: all that hold one of its tokens of any tokenizer.

    Two text encoders are read side by side: column i is the i-th token of each. Their tokenizers differ in some prompts
    ("wow!!!"), so that the entity stands in other columns for one than for the other.
    """
    return tuple(sorted(set().union(*tokens)))


class TrainingData:
    """Prompts with their entities and reference latents, and real latents with their captions.

    `guarded` are the rows of the prompts that are set apart for the guard.
    """

    def __init__(self, params: Params, prompts: Path, entities: Path, reference: Path, images: Path) -> None:
        self.p = params
        self.reference = TensorStore(reference)
        rows = read_table(prompts / "prompts.parquet", PROMPTS)
        texts = {row["id"]: row["text"] for row in rows}
        self.guarded = set_apart(rows, params.train.guard, params.seed)
        unknown = [id for id in self.reference.ids if id not in texts]
        if unknown or not self.reference.ids:
            raise UserError(
                f"{reference}: {len(unknown)} of {len(self.reference.ids)} latents are of prompts that {prompts} does "
                "not hold; run the reference_latents stage again"
            )
        apart = {row["id"] for row in self.guarded}
        self.prompts = [(id, texts[id]) for id in sorted(self.reference.ids) if id not in apart]
        if not self.prompts or len(apart) < params.train.guard.prompts * bool(params.train.guard.every):
            raise UserError(
                f"{prompts}: too few training prompts: train.guard.prompts sets {len(apart)} apart, which leaves "
                f"{len(self.prompts)} to train on; lower it, or add prompts"
            )
        self.entities: dict[str, list[Entity]] = {}
        for row in read_table(entities / "entities.parquet", ENTITIES):
            if row["kept"] and (columns := columns_of(row["tokens"])):
                entity = Entity(row["lemma"], columns)
                self.entities.setdefault(row["prompt_id"], []).append(entity)
        self.mixed = bool(params.image_batch and params.concept_activation)
        self.real_world = bool(params.lambda_adv) and params.discriminator_input == "real_world"
        self.images = TensorStore(images) if self.mixed or self.real_world else None
        if self.images is not None and not len(self.images):
            raise UserError(
                f"{images}: no image latents; give image_latents.images a folder, or set image_batch to 0 and "
                "discriminator_input to generated"
            )

    def batch(self, iteration: int) -> Batch:
        """The batch of an iteration: epochs without replacement, each shuffled by the seed."""
        picked = [self.prompts[i] for i in self._epochs("prompts", iteration, self.p.global_batch, len(self.prompts))]
        reference = real = None
        captions: list[str] = []
        if self.real_world:
            reference, _ = self._draw_images("real world", iteration, self.p.global_batch)
        elif self.p.lambda_adv:
            reference = torch.stack([self.reference[id]["latents"] for id, _ in picked])
        if self.mixed:
            real, captions = self._draw_images("images", iteration, self.p.image_batch)
        return Batch(
            iteration,
            [text for _, text in picked],
            [self.entities.get(id, []) for id, _ in picked],
            reference,
            real,
            captions,
        )

    def _draw_images(self, purpose: str, iteration: int, count: int) -> tuple[Tensor, list[str]]:
        """Latents (count, C, h, w) of real images and their captions."""
        rows = [self.images.sorted_id(i) for i in self._epochs(purpose, iteration, count, len(self.images))]
        return torch.stack([self.images[id]["latents"] for id in rows]), [self.images.caption(id) for id in rows]

    def _epochs(self, purpose: str, iteration: int, size: int, total: int) -> list[int]:
        rows = []
        for place in range(iteration * size, (iteration + 1) * size):
            order = torch.randperm(total, generator=generator(self.p.seed, purpose, place // total))
            rows.append(int(order[place % total]))
        return rows
