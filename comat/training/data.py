"""What each iteration trains on: a function of the seed and the iteration alone."""

from __future__ import annotations

from pathlib import Path

import torch

from comat.corpora.contamination import Contamination
from comat.errors import UserError
from comat.method.attribute_concentration import Entity
from comat.method.batch import NO_IMAGES, Batch, RealImages
from comat.params import GuardParams, StepParams
from comat.randomness import generator
from comat.storage.tables import ENTITIES, PROMPTS, read_table
from comat.storage.tensor_store import TensorStore
from comat.tokenizers import Columns
from comat.training.guard import set_apart


class TrainingData:
    """Prompts with their entities and reference latents, and real latents with captions and the entities of these.

    `columns` says where the base model's attention maps hold the tokens of an entity; `guarded` are the rows of the
    prompts that are set apart for the guard. Images whose captions are prompts that are held out, or near them, teach
    nothing: `held_out` of them.
    """

    def __init__(
        self,
        params: StepParams,
        discriminator_input: str,
        guard: GuardParams,
        prompts: Path,
        entities: Path,
        reference: Path,
        images: Path,
        captions: Path,
        columns: Columns,
    ) -> None:
        self.p = params
        self.reference = TensorStore(reference)
        rows = read_table(prompts / "prompts.parquet", PROMPTS)
        texts = {row["id"]: row["text"] for row in rows}
        self.guarded = set_apart(rows, guard, params.seed)
        unknown = [id for id in self.reference.ids if id not in texts]
        if unknown or not self.reference.ids:
            raise UserError(
                f"{reference}: {len(unknown)} of {len(self.reference.ids)} latents are of prompts that {prompts} does "
                "not hold; run the reference_latents stage again"
            )
        apart = {row["id"] for row in self.guarded}
        self.prompts = [(id, texts[id]) for id in sorted(self.reference.ids) if id not in apart]
        if not self.prompts or len(apart) < guard.prompts * bool(guard.every):
            raise UserError(
                f"{prompts}: too few training prompts: train.guard.prompts sets {len(apart)} apart, which leaves "
                f"{len(self.prompts)} to train on; lower it, or add prompts"
            )
        self.entities = _entities(entities, columns, params.attribute_tokens)
        if params.grounds_generated and not any(id in self.entities for id, _ in self.prompts):
            raise UserError(
                f"{entities}: not one of the {len(self.prompts)} training prompts has an entity, so attribute "
                "concentration would train on nothing; look at data/entities/report.json, or set attribute_steps to 0"
            )
        learns = params.mixed_latents or params.noises_real
        real_world = bool(params.lambda_adv) and discriminator_input == "real_world"
        store = _image_latents(images) if learns or real_world else None
        self.images, self.real_world = store if learns else None, store if real_world else None
        self.image_ids = _not_held_out(store, images, prompts) if store is not None else []
        self.held_out = len(store) - len(self.image_ids) if store is not None else 0
        self.captioned: dict[str, list[Entity]] = {}
        if params.grounds_real and store is not None:
            self.captioned = _entities(captions, columns, params.attribute_tokens)
            if not any(id in self.captioned for id in self.image_ids):
                raise UserError(
                    f"{captions}: not one of the {len(self.image_ids)} captions of real images has an entity, so "
                    "attribute concentration would train on nothing; look at its report.json, or set "
                    "attribute_images to generated"
                )

    def batch(self, iteration: int) -> Batch:
        """The batch of an iteration: epochs without replacement, each shuffled by the seed."""
        picked = [self.prompts[i] for i in self._epochs("prompts", iteration, self.p.global_batch, len(self.prompts))]
        reference, real = None, NO_IMAGES
        if self.real_world is not None:
            reference = self._draw_images(self.real_world, "real world", iteration, self.p.global_batch).latents
        elif self.p.lambda_adv:
            reference = torch.stack([self.reference[id]["latents"] for id, _ in picked])
        if self.images is not None:
            real = self._draw_images(self.images, "images", iteration, self.p.image_batch)
        entities = [self.entities.get(id, []) for id, _ in picked]
        return Batch(iteration, [text for _, text in picked], entities, reference, real)

    def _draw_images(self, store: TensorStore, purpose: str, iteration: int, count: int) -> RealImages:
        ids = [self.image_ids[i] for i in self._epochs(purpose, iteration, count, len(self.image_ids))]
        latents, captions = torch.stack([store[id]["latents"] for id in ids]), [store.caption(id) for id in ids]
        return RealImages(latents, captions, [self.captioned.get(id, []) for id in ids])

    def _epochs(self, purpose: str, iteration: int, size: int, total: int) -> list[int]:
        rows = []
        for place in range(iteration * size, (iteration + 1) * size):
            order = torch.randperm(total, generator=generator(self.p.seed, purpose, place // total))
            rows.append(int(order[place % total]))
        return rows


def _entities(folder: Path, columns: Columns, tokens: str) -> dict[str, list[Entity]]:
    """The kept entities of each prompt, by its id, with the columns of all their tokens or of the noun's alone."""
    found: dict[str, list[Entity]] = {}
    for row in read_table(folder / "entities.parquet", ENTITIES):
        if row["kept"] and (own := columns(row["noun_tokens" if tokens == "noun" else "tokens"])):
            found.setdefault(row["prompt_id"], []).append(Entity(row["lemma"], own))
    return found


def _not_held_out(store: TensorStore, images: Path, prompts: Path) -> list[str]:
    """The ids of the images that may be trained on, sorted.

    Raises:
        UserError: if there are none.
    """
    evaluation = Contamination.of_prompts(prompts)
    found = sorted(id for id in store.ids if evaluation.match(store.caption(id)) is None)  # read in their order
    if not found:
        raise UserError(
            f"{images}: all {len(store)} captions are evaluation prompts of {prompts}/evaluation.parquet, or near "
            "them; give other images, or see prompts.decontaminate"
        )
    return found


def _image_latents(folder: Path) -> TensorStore:
    store = TensorStore(folder)
    if not len(store):
        raise UserError(
            f"{folder}: no image latents; give image_latents.images a folder, or set image_batch to 0 and "
            "discriminator_input to generated"
        )
    return store
