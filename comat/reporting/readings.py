"""What the shapes world's oracle read in an image, in words: a person may see there what it does not."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path

from comat.reporting.pairs import Shown
from comat.shapes.world.captions import NUMBERS, parse_prompt, plural
from comat.shapes.world.oracle import Detection, read_image
from comat.shapes.world.scenes import Spec
from comat.storage.images import read_rgb

WORDS = {number: word for word, number in NUMBERS.items()}


def readings(shown: Shown) -> dict[Path, str]:
    """Of the shown images that the oracle finds wrong what it read; nothing where it is not the main benchmark."""
    if shown.benchmark != "oracle":
        return {}
    wrong = {shot.path: pair.text for pair in shown.pairs for shot in pair.shots.values() if shot.score < 1}
    return {path: reading(read_image(read_rgb(path)), parse_prompt(text)) for path, text in wrong.items()}


def reading(found: list[Detection], spec: Spec) -> str:
    """ "no star, a red ball, two blue cubes": what is missing, then what is there."""
    nouns = {detection.noun for detection in found}
    missing = dict.fromkeys(group.noun for group in spec.groups if group.noun not in nouns)
    things: Mapping[tuple[str | None, str | None], int] = Counter((one.colour, one.noun) for one in found)
    there = [_counted(count, colour, noun) for (colour, noun), count in things.items()]
    return ", ".join([*(f"no {noun}" for noun in missing), *there]) or "nothing"


def _counted(count: int, colour: str | None, noun: str | None) -> str:
    name = noun or "unknown shape"
    words = [colour or "", plural(name) if count > 1 else name]
    text = " ".join(word for word in words if word)
    if count > 1:
        return f"{WORDS.get(count, count)} {text}"
    return f"{'an' if text[0] in 'aeiou' else 'a'} {text}"
