"""The page of a preference study and its key: pairs of the same prompt and noise, left and right at random."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from comat.errors import UserError
from comat.randomness import python_random, stratified
from comat.reporting.embed import data_uri
from comat.reporting.html import render
from comat.storage.json_files import read_json
from comat.storage.tables import IMAGE_INDEX, read_table, sha256, write_bytes, write_json

CRITERIA = {
    "alignment": "Which image shows better what the text says?",
    "quality": "Which image is the better picture, whatever the text says?",
}
"""The paper asks for "both the image quality and text-image alignment", the superior of two images "respectively"."""
LONGEST = 768
"""Pixels of an image's longer side."""
Model = Literal["base", "tuned"]
MODELS: tuple[Model, Model] = ("base", "tuned")
_STUDY = re.compile(rb'const STUDY = "(\w+)"')  # as the page says which it is


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
    Which prompts and which of their seeds depends on `seed` alone, which side is whose on it and the images' files.
    So other images are another study: nobody knows its sides from an earlier key, and no earlier votes count in it.

    Raises:
        UserError: if an image is missing, no prompt was drawn by both models, page and key are one file, or one of
            them would take the place of anything but the same study's.
    """
    if page.resolve() == key.resolve():
        raise UserError(f"{key}: the page and its key are one file; give --out and --key two names")
    index = {model: _drawn(folder, source) for model, folder in folders.items()}
    both = {image: row for image, row in index["base"].items() if image in index["tuned"]}
    chosen = _choose(both, count, seed)
    if not chosen:
        raise UserError(_nothing(folders, source))
    paths = [{model: folders[model] / index[model][image]["path"] for model in MODELS} for image in chosen]
    shown = [{model: data_uri(path, LONGEST) for model, path in own.items()} for own in paths]
    sums = [[sha256(own[model]) for model in MODELS] for own in paths]
    asked = _sides([both[image] for image in chosen], sums, seed)
    identity = {"pairs": [one.model_dump() for one in asked], "images": sums}
    study = hashlib.sha256(json.dumps(identity).encode()).hexdigest()[:12]
    pairs = [
        {"number": number, "text": one.text, "left": own[one.left], "right": own[one.right]}
        for number, (one, own) in enumerate(zip(asked, shown, strict=True))
    ]
    values = {"study": study, "pairs": pairs, "criteria": CRITERIA}
    text = render("comat.preference", "preference.html.j2", values)
    _check_free(page, "page", _of_page(page), study, "--out")
    _check_free(key, "key", _of_key(key), study, "--key")
    write_json(key, Key(study=study, pairs=asked).model_dump())
    write_bytes(page, text.encode())
    return len(asked)


def _check_free(path: Path, kind: str, found: str | None, study: str, option: str) -> None:
    """Raises UserError where something stands that is not this study's own."""
    if path.exists() and found != study:
        other = "another file" if found is None else f"the {kind} of study {found}, whose pairs or images are others"
        raise UserError(
            f"{path}: expected nothing, or the {kind} of study {study}; found {other}; give another {option}, or move "
            "it away"
        )


def _of_page(path: Path) -> str | None:
    """The study that a page is of; None for another file, or none."""
    found = _STUDY.search(path.read_bytes()) if path.is_file() else None
    return found[1].decode() if found else None


def _of_key(path: Path) -> str | None:
    """The study that a key is of; None for another file, or none."""
    try:
        return read_json(path, Key, "a key", "give another").study if path.is_file() else None
    except UserError:
        return None


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


def _choose(rows: Mapping[tuple[str, int], dict], count: int, seed: int) -> list[tuple[str, int]]:
    """One image of each of `count` prompts, categories mixed."""
    rng = python_random(seed, "preference")
    prompts: dict[str, list[int]] = {}
    for id, number in sorted(rows):
        prompts.setdefault(id, []).append(number)
    chosen = stratified(sorted(prompts), count, lambda id: rows[id, prompts[id][0]]["category"], rng)
    rng.shuffle(chosen)
    return [(id, rng.choice(prompts[id])) for id in chosen]


def _sides(rows: Sequence[Mapping[str, Any]], sums: Sequence[Sequence[str]], seed: int) -> list[Asked]:
    """The pairs with their sides, drawn anew where one image of any pair is another."""
    rng = python_random(seed, "preference sides", *(sum for own in sums for sum in own))
    asked = []
    for row in rows:
        left, right = rng.sample(MODELS, 2)
        asked.append(Asked(prompt_id=row["prompt_id"], text=row["text"], seed=row["seed"], left=left, right=right))
    return asked
