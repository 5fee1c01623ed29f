"""The page of a preference study and its key: pairs of the same prompt and noise, left and right at random."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict

from comat.errors import UserError
from comat.randomness import python_random, stratified
from comat.reporting.embed import data_uri
from comat.reporting.html import render
from comat.storage.tables import IMAGE_INDEX, read_table, write_bytes, write_json

CRITERIA = {
    "alignment": "Which image shows better what the text says?",
    "quality": "Which image is the better picture, whatever the text says?",
}
"""The paper asks for "both the image quality and text-image alignment", the superior of two images "respectively"."""
LONGEST = 768
"""Pixels of an image's longer side."""
Model = Literal["base", "tuned"]


class Asked(BaseModel):
    """A pair of the study, and whose image stands on which side."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    prompt_id: str
    text: str
    seed: int
    left: Model
    right: Model


class Key(BaseModel):
    """Which model drew which side, for every pair in the order of the page; `study` ties votes to it."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    study: str
    pairs: list[Asked]


def write_study(
    folders: Mapping[Model, Path], count: int, seed: int, page: Path, key: Path, source: str | None = None
) -> int:
    """Write the page and its key; returns the number of pairs, `count` or all prompts that there are.

    Prompts are those of one `source`, "dsg" say, or of all. A prompt is asked once, and of each category its share.
    Which prompts, which of their seeds and which side is whose depends on `seed` alone.

    Raises:
        UserError: if an image is missing, or no prompt was drawn by both models.
    """
    index = {model: _drawn(folder, source) for model, folder in folders.items()}
    both = {image: row for image, row in index["base"].items() if image in index["tuned"]}
    asked = _choose(both, count, seed)
    if not asked:
        raise UserError(_nothing(folders, source))
    study = hashlib.sha256(json.dumps([one.model_dump() for one in asked]).encode()).hexdigest()[:12]
    pairs = []
    for number, one in enumerate(asked):
        paths = {model: folders[model] / index[model][one.prompt_id, one.seed]["path"] for model in folders}
        sides = {"left": data_uri(paths[one.left], LONGEST), "right": data_uri(paths[one.right], LONGEST)}
        pairs.append({"number": number, "text": one.text, **sides})
    values = {"study": study, "pairs": pairs, "criteria": CRITERIA}
    write_json(key, Key(study=study, pairs=asked).model_dump())
    write_bytes(page, render("comat.preference", "preference.html.j2", values).encode())
    return len(asked)


def _drawn(folder: Path, source: str | None) -> dict[tuple[str, int], dict]:
    rows = read_table(folder / "index.parquet", IMAGE_INDEX)
    return {(row["prompt_id"], row["seed"]): row for row in rows if source in (None, row["source"])}


def _nothing(folders: Mapping[Model, Path], source: str | None) -> str:
    if source is None:
        return f"{folders['tuned']}: no prompt was drawn by both models; run `dvc repro samples` first"
    rows = read_table(folders["tuned"] / "index.parquet", IMAGE_INDEX)
    found = ", ".join(sorted({row["source"] for row in rows})) or "none"
    return (
        f"{folders['tuned']}: no prompt of source {source!r} was drawn by both models (there: {found}); name its file "
        "in samples.benchmarks or prompts.sources and run `dvc repro samples`"
    )


def _choose(rows: Mapping[tuple[str, int], dict], count: int, seed: int) -> list[Asked]:
    """One image of each of `count` prompts, categories mixed, and the sides."""
    rng = python_random(seed, "preference")
    prompts: dict[str, list[int]] = {}
    for id, number in sorted(rows):
        prompts.setdefault(id, []).append(number)
    asked = []
    models: list[Model] = ["base", "tuned"]
    chosen = stratified(sorted(prompts), count, lambda id: rows[id, prompts[id][0]]["category"], rng)
    rng.shuffle(chosen)
    for id in chosen:
        number = rng.choice(prompts[id])
        left, right = rng.sample(models, 2)
        asked.append(Asked(prompt_id=id, text=rows[id, number]["text"], seed=number, left=left, right=right))
    return asked
