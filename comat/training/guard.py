"""The guard against reward hacking: prompts set apart from training, drawn and judged while training goes on.

The captioner's loss can fall while images get worse: what is optimised stops to stand for what is wanted. The guard
looks from outside, at prompts that no step trains on and that are none of the evaluation's, and keeps the best LoRA.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from operator import itemgetter
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm

from comat.diffusion.backbones import Backbone
from comat.diffusion.lora import lora_state, merged, set_lora_state
from comat.diffusion.sampling import decoded, sample_latents
from comat.errors import UserError, unbroken
from comat.judges.benchmark import Benchmark, Drawn
from comat.judges.frechet import Features, batches, frechet_distances
from comat.params import GuardParams, SamplingParams
from comat.randomness import python_random, stratified
from comat.storage.images import read_rgb, to_bytes, write_png
from comat.storage.tensor_store import TensorStore

COLUMNS = ["iteration", "score", "frechet"]
ORIGINALS = 256
"""Images of the original model, at most, that the Fréchet distance is measured to."""


def set_apart(rows: Sequence[dict], section: GuardParams, seed: int) -> list[dict]:
    """The guard's prompts: training rows of `PROMPTS`, of each category its share, by seed; none while it is off."""
    if not section.every:
        return []
    rows = [row for row in rows if row["split"] == "train"]
    return stratified(rows, section.prompts, itemgetter("category"), python_random(seed, "guard prompts"))


class Guard:
    """Draws `prompts` (rows of `PROMPTS`) with the LoRA as it is, and remembers scores and the best LoRA so far.

    `judge` scores the images; `features` and the original model's images (H, W, 3), uint8, measure how far they drift.
    Images of the last look stay in `folder`. `rows` and `best` are its state.

    Raises:
        UserError: if the judge has nothing to say of a prompt.
    """

    def __init__(
        self,
        section: GuardParams,
        sampling: SamplingParams,
        device_batch: int,
        backbone: Backbone,
        prompts: Sequence[dict],
        judge: Benchmark,
        features: nn.Module,
        originals: Sequence[np.ndarray],
        folder: Path,
    ) -> None:
        self.section, self.sampling, self.device_batch = section, sampling, device_batch
        self.backbone, self.folder = backbone, folder
        self.judge, self.features, self.originals = judge, features, originals
        self.images = [
            Drawn("tuned", row["id"], row["text"], row["source"], row["category"], 0, f"{row['id']}.png")
            for row in prompts
        ]
        strange = next((image.text for image in self.images if not judge.covers(image)), None)
        if strange is not None:
            raise UserError(
                f"train.guard.metric is {self.section.metric}, which cannot judge the training prompt {strange!r}; "
                "set it to clip_score"
            )
        self.rows: list[dict[str, float]] = []
        self.best: dict[str, Tensor] = {}

    def look(self, iteration: int) -> None:
        """Draw and judge what the LoRA is after `iteration` iterations, unless that was done."""
        if self.rows and self.rows[-1]["iteration"] == iteration:
            return
        self._draw()
        scores = [score.value for score in self.judge.scores(self.images, self.folder)]
        score = sum(scores) / len(scores)
        distance = self._distance()
        with unbroken():
            if not self.rows or score > max(row["score"] for row in self.rows):
                state = lora_state(self.backbone.denoiser).items()
                self.best = {name: value.detach().cpu().clone() for name, value in state}
            self.rows.append({"iteration": iteration, "score": score, "frechet": distance})

    def stops(self, iteration: int) -> bool:
        """Look, where one is due before the next iteration; whether patience is at its end."""
        if iteration % self.section.every == 0:
            self.look(iteration)
        since = len(self.rows) - 1 - self.rows.index(self.best_row)
        return 0 < self.section.patience <= since

    @property
    def best_row(self) -> dict[str, float]:
        """The first look with the highest score: of equals the one that went less far."""
        return max(self.rows, key=lambda row: row["score"])

    def choose(self) -> dict[str, float]:
        """Put the LoRA that is to be kept into the denoiser; the look that it was seen at."""
        if self.section.keep == "last":
            return self.rows[-1]
        set_lora_state(self.backbone.denoiser, self.best)
        return self.best_row

    def _draw(self) -> None:
        for at in tqdm(range(0, len(self.images), self.device_batch), desc="guard's look", leave=False):
            part = self.images[at : at + self.device_batch]
            keys = [(image.prompt_id, 0) for image in part]
            with merged(self.backbone.denoiser), torch.no_grad():
                texts = [image.text for image in part]
                z = sample_latents(self.backbone, self.sampling, texts, keys, "guard", self.sampling.resolution)
                pixels = decoded(self.backbone, z)
            for image, own in zip(part, pixels, strict=True):
                write_png(self.folder / image.path, own)

    def _distance(self) -> float:
        size = self.device_batch
        drawn = (read_rgb(self.folder / image.path) for image in self.images)
        real, sets = batches(self.originals, size), {"tuned": batches(drawn, size)}
        return frechet_distances(self.features, real, sets, self.backbone.device)["tuned"]


def load_guard(
    section: GuardParams,
    sampling: SamplingParams,
    device_batch: int,
    backbone: Backbone,
    prompts: Sequence[dict],
    reference: TensorStore,
    folder: Path,
) -> Guard | None:
    """The guard of the parameters, or None where it is off. `reference` holds the original model's latents."""
    if not section.every:
        return None
    assert section.feature_model is not None  # `GuardParams` asks for it, and below for the other
    judge = _judge(section, backbone.device, device_batch)
    features = Features(section.feature_model, section.feature_revision, sampling.resolution)
    originals = list(_originals(backbone, reference, device_batch))
    return Guard(section, sampling, device_batch, backbone, prompts, judge, features, originals, folder)


def _judge(section: GuardParams, device: torch.device, batch_size: int) -> Benchmark:
    if section.metric == "oracle":
        from comat.judges.oracle import Oracle

        return Oracle()
    from comat.judges.clip import Clip
    from comat.judges.clip_score import ClipScore
    from comat.judges.later import ready

    assert section.clip_model is not None
    return ClipScore(ready(Clip(section.clip_model, section.clip_revision, device)), batch_size)


@torch.no_grad()
def _originals(backbone: Backbone, reference: TensorStore, size: int) -> Iterator[np.ndarray]:
    ids = sorted(reference.ids)[:ORIGINALS]  # ids are hashes: their order is one at random
    for at in range(0, len(ids), size):
        z = torch.stack([reference[id]["latents"] for id in ids[at : at + size]])
        yield from (to_bytes(image) for image in decoded(backbone, z.to(backbone.device)))
