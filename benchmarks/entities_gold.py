"""Gold entities: those that templated corpora carry in themselves, and those annotated by hand."""

from __future__ import annotations

import csv
import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ruamel.yaml import YAML

from comat.corpora.text import normalise

NATURAL = Path(__file__).parents[1] / "tests/data/entities/natural.yaml"

KINDS = ("natural", "community", "long")

TEMPLATED_ATTRIBUTES = {
    "color": "red orange yellow green blue purple pink black white brown gray grey gold silver beige tan",
    "shape": "round rectangular teardrop spherical pyramidal diamond pentagonal conical cylindrical cubic triangular "
    "square oval circular oblong crescent small big short tall long",
    "texture": "metallic fabric wooden leather plastic fluffy glass rubber",
}
"""The attributes of T2I-CompBench's templates, by category."""


@dataclass(frozen=True)
class GoldEntity:
    """A noun, its attributes and numerals in lower case, and whether a mask can be found for it (None: not said)."""

    noun: str
    attributes: tuple[str, ...] = ()
    numerals: tuple[str, ...] = ()
    has_mask: bool | None = None


@dataclass(frozen=True)
class GoldPrompt:
    text: str
    entities: tuple[GoldEntity, ...]


def parse_notation(entities: str) -> tuple[GoldEntity, ...]:
    """The notation of `tests/data/entities/GUIDELINE.md`: "~rainy night; #two small red balls; table"."""
    return tuple(_noted(phrase.strip()) for phrase in entities.split(";"))


def _noted(phrase: str) -> GoldEntity:
    *words, noun = phrase.removeprefix("~").lower().split()
    numerals = tuple(word.removeprefix("#") for word in words if word.startswith("#"))
    attributes = tuple(word for word in words if not word.startswith("#"))
    return GoldEntity(noun, attributes, numerals, not phrase.startswith("~"))


def natural_prompts(held_out: bool, path: Path = NATURAL) -> list[GoldPrompt]:
    """One half of the hand-annotated prompts: held out are those whose text has an odd SHA-256."""
    rows = YAML(typ="safe").load(path.read_text(encoding="utf-8"))
    halves = [int(hashlib.sha256(row["prompt"].encode()).hexdigest(), 16) % 2 for row in rows]
    return [
        GoldPrompt(row["prompt"], parse_notation(row["entities"]))
        for row, half in zip(rows, halves, strict=True)
        if half == held_out
    ]


def held_out_prompts(kind: str, name: str = "held_out") -> list[GoldPrompt]:
    """A third of the prompts held out: "natural", "community" (in the style of image communities) or "long".

    name: of the file; `held_out_2` was drawn after the errors of `held_out` had been looked at.
    """
    rows = YAML(typ="safe").load(NATURAL.with_name(f"{name}.yaml").read_text(encoding="utf-8"))
    return [GoldPrompt(row["prompt"], parse_notation(row["entities"])) for row in rows if row["kind"] == kind]


def hrs_colours(folder: Path) -> list[GoldPrompt]:
    """HRS-Bench's colour prompts: "a red banana and a green chair.", whose columns name objects and colours."""
    (file,) = folder.rglob("synthetic_color_comp_prompts.csv")
    found = {}
    for row in csv.DictReader(file.read_text(encoding="utf-8-sig").splitlines()):
        objects = [(row[f"obj{i}"], row[f"color{i}"]) for i in range(1, 5) if row[f"obj{i}"]]
        found[normalise(row["meta_prompt"])] = tuple(_phrase(f"{colour} {noun}") for noun, colour in objects)
    return [GoldPrompt(text, entities) for text, entities in found.items()]


def t2i_compbench(folder: Path, category: str) -> list[GoldPrompt]:
    """T2I-CompBench's templated prompts of a category: "a conical hat and a diamond pair of sunglasses"."""
    attributes = "|".join(TEMPLATED_ATTRIBUTES[category].split())
    word = r"(?!an? )\w+"
    phrase = rf"(?:an? )?((?:{attributes}) {word}(?: {word}){{0,2}}?(?: of \w+(?: \w+)?)?)"
    template = re.compile(rf"{phrase} and {phrase}\.?", re.IGNORECASE)
    texts = {normalise(line) for split in ("train", "val") for line in _lines(folder / f"{category}_{split}.txt")}
    found = ((text, template.fullmatch(text)) for text in sorted(texts))
    return [GoldPrompt(text, tuple(_phrases(match.groups()))) for text, match in found if match]


def _lines(file: Path) -> list[str]:
    return file.read_text(encoding="utf-8-sig").splitlines()


def _phrases(phrases: tuple[str, ...]) -> Iterator[GoldEntity]:
    for phrase in phrases:
        yield from map(_phrase, phrase.split(" of "))


def _phrase(words: str) -> GoldEntity:
    *attributes, noun = words.lower().split()
    return GoldEntity(noun, tuple(attributes))
