"""A training-free method as a peer: the run's own base or tuned model, drawn by another way of sampling."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Sequence, Set
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from comat.diffusion.backbones import Backbone
from comat.diffusion.load import load_backbone
from comat.diffusion.lora import FILE, load_lora
from comat.diffusion.sampling import decoded
from comat.entities.lexicon import DETERMINERS
from comat.errors import UserError
from comat.params import DRAWN_BY_THE_RUN, DrawingParams
from comat.running.workdir import sum_of
from comat.samples.methods import METHODS, method_class
from comat.samples.methods.base import Phrase, Told, sample_by
from comat.storage.images import png, to_bytes
from comat.storage.tables import ENTITIES, read_table, sha256


@dataclass(frozen=True)
class MethodRun:
    """A method of `METHODS` on the models of the run in the folder `data`; `tuned`, with its LoRA."""

    method: str
    data: Path
    tuned: bool = False

    def check(self) -> None:
        """See that there is such a method, and the run's models.

        Raises:
            UserError: otherwise.
        """
        if self.method not in METHODS:
            raise UserError(f"--method {self.method[:60]!r}: expected {', '.join(METHODS)}")
        needed = [self.data / "warmup", self.entities]
        needed += [self.data / "train/lora" / FILE] if self.tuned else []
        for path in needed:
            if not path.exists():
                raise UserError(
                    f"{path}: missing; the method draws with the models of a finished run: `dvc repro` first"
                )

    @property
    def lora(self) -> Path | None:
        return self.data / "train/lora" if self.tuned else None

    @property
    def entities(self) -> Path:
        return self.data / "entities/entities.parquet"

    def record(self, drawing: DrawingParams) -> dict[str, object]:
        """What decides over the images beside what decides over those of any model; files by their sha256."""
        parts = (*DRAWN_BY_THE_RUN, "vae_revision")
        sums = {
            "entities": sha256(self.entities),
            "lora_file": sha256(self.lora / FILE) if self.lora else None,
            "warmup": sum_of(self.data / "warmup"),
        }
        return {"method": self.method, **{key: getattr(drawing, key) for key in parts}, **sums}


def pictures_by_method(
    drawing: DrawingParams, run: MethodRun, batches: Sequence[Sequence[dict]]
) -> Iterator[list[bytes]]:
    """The PNG files of each batch of rows of `IMAGE_INDEX`, from the noise that base and tuned model start from.

    Prompts of which no entities were noted, as those of benchmarks, are drawn as without the method, and counted.

    Raises:
        UserError: if that is all of them.
    """
    if not batches:
        return
    backbone, method = load_backbone(drawing, run.data / "warmup"), method_class(run.method)()
    if run.lora:
        load_lora(backbone, run.lora)
    texts = {row["prompt_id"]: row["text"] for part in batches for row in part}
    phrases: dict[str, list[Phrase]] = {}
    for row in read_table(run.entities, ENTITIES):
        if row["kept"] and (text := texts.get(row["prompt_id"])):
            phrases.setdefault(row["prompt_id"], []).append(phrase_of(backbone, row, text))
    _see_entities(texts.keys(), phrases.keys(), run.method)
    for part in batches:
        told = [Told(row["text"], tuple(phrases.get(row["prompt_id"], ()))) for row in part]
        keys = [(row["prompt_id"], row["seed"]) for row in part]
        z = sample_by(method, backbone, drawing, told, keys, "sample")
        yield [png(Image.fromarray(to_bytes(image))) for image in decoded(backbone, z)]


def _see_entities(drawn: Set[str], known: Set[str], method: str) -> None:
    """Say how many prompts the method can do nothing for."""
    without = len(drawn - known)
    if without == len(drawn):
        raise UserError(
            f"{method}: none of the {len(drawn)} prompts has entities in data/entities; it would change nothing"
        )
    if without:
        told = f"{method}: {without} of {len(drawn)} prompts have no entities and are drawn as without it"
        print(told, file=sys.stderr)


def phrase_of(backbone: Backbone, entity: dict, prompt: str) -> Phrase:
    """ "a red ball", "the fluffy cat", "two green stars": an entity with its numerals and attributes, by itself.

    Without a numeral it has the determiner that it has in the prompt; where its words do not stand together there, "a".
    """
    words = " ".join([*entity["numerals"], *entity["attributes"], entity["noun"]])
    if not entity["numerals"]:
        own = re.search(rf"(?:\b(\w+) )?\b{re.escape(words)}\b", prompt, re.IGNORECASE)
        if own is None:
            words = f"{'an' if words[:1].lower() in 'aeiou' else 'a'} {words}"
        elif (own[1] or "").lower() in DETERMINERS:
            words = f"{own[1]} {words}"
    return Phrase(words, backbone.columns(entity["noun_tokens"]))
