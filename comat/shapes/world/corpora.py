"""The world's prompt files in the formats of the paper's three corpora, and renders in COCO's.

`python -m comat.shapes.world.corpora prompts --out FOLDER` and `… coco --out FOLDER --count N --size PX`.
"""

from __future__ import annotations

import argparse
import csv
import json
import random
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from PIL import Image
from tqdm import tqdm

from comat.shapes.world.captions import describe, describe_group
from comat.shapes.world.render import render
from comat.shapes.world.scenes import Spec, sample_spec, scene_for


class File(NamedTuple):
    """The category of the world that a file of T2I-CompBench holds, and how many prompts of each split."""

    category: str
    train: int
    val: int


T2I_COMPBENCH = {
    "color": File("color", 300, 100),
    "spatial": File("spatial", 240, 70),
    "numeracy": File("counting", 160, 40),
    "complex": File("complex", 240, 60),
}
HRS = 120
ABC6K_PAIRS = 100


def key_of(spec: Spec) -> str:
    """What its captions say, in whatever order they name their groups."""
    return f"{spec.relation} " + " ".join(sorted(describe_group(g) for g in spec.groups))


def unique_specs(category: str, count: int, seen: set[str], rng: random.Random) -> list[Spec]:
    """`count` specs whose keys are not in `seen`; adds them to it."""
    specs: list[Spec] = []
    while len(specs) < count:
        spec = sample_spec(category, rng)
        key = key_of(spec)
        if key not in seen:
            seen.add(key)
            specs.append(spec)
    return specs


def held_out(seed: int = 0) -> set[str]:
    """The keys of the validation prompts that `write_prompts` writes."""
    rng, seen = random.Random(f"corpora {seed}"), set[str]()
    for file in T2I_COMPBENCH.values():
        unique_specs(file.category, file.val, seen, rng)
    return seen


def write_prompts(folder: Path, seed: int = 0) -> None:
    """Write `t2i-compbench/`, `hrs/` and `abc-6k/` below `folder`; no training prompt is a validation prompt."""
    rng = random.Random(f"corpora {seed}")
    seen: set[str] = set()
    (folder / "t2i-compbench").mkdir(parents=True, exist_ok=True)
    for split in ("val", "train"):
        for name, file in T2I_COMPBENCH.items():
            specs = unique_specs(file.category, file.val if split == "val" else file.train, seen, rng)
            _lines(folder / "t2i-compbench" / f"{name}_{split}.txt", [describe(spec) for spec in specs])
    _hrs(folder / "hrs", seen, rng)
    pairs = [caption for spec in unique_specs("color", ABC6K_PAIRS, seen, rng) for caption in _contrast(spec)]
    _lines(folder / "abc-6k" / "ABC-6K.txt", [f"{caption[0].upper()}{caption[1:]}." for caption in pairs])


def _contrast(spec: Spec) -> tuple[str, str]:
    """A caption and the same with its colours swapped, as ABC-6K pairs them."""
    a, b = spec.groups
    swapped = Spec((replace(a, colour=b.colour), replace(b, colour=a.colour)))
    return describe(spec), describe(swapped)


def _hrs(folder: Path, seen: set[str], rng: random.Random) -> None:
    colours = [
        [
            describe(s) + ".",
            s.groups[0].noun,
            s.groups[1].noun,
            "",
            "",
            s.groups[0].colour,
            s.groups[1].colour,
            "",
            "",
            "",
        ]
        for s in unique_specs("color", HRS, seen, rng)
    ]
    objects = ["obj1", "obj2", "obj3", "obj4"]
    header = ["meta_prompt", *objects, "color1", "color2", "color3", "color4", "synthetic_prompt"]
    _csv(folder / "compositional_skill" / "colors" / "synthetic_color_comp_prompts.csv", header, colours)
    spatial = [
        [describe(s) + ".", s.groups[0].noun, s.groups[1].noun, "", "", s.relation, "", ""]
        for s in unique_specs("spatial", HRS, seen, rng)
    ]
    header = ["meta_prompt", *objects, "rel1", "rel2", "synthetic_prompt"]
    _csv(folder / "compositional_skill" / "spatial" / "synthetic_spatial_relation_prompts.csv", header, spatial)
    counting = []
    for spec in unique_specs("counting", HRS, seen, rng):
        pairs = [value for g in spec.groups for value in (g.count, g.noun)]
        vanilla = " and ".join(f"{g.count} {g.noun}" for g in spec.groups)
        meta = f"In one sentence, Describe a real scene about {vanilla}."
        counting.append([meta, vanilla, *([*pairs, 0, ""])[:4], describe(spec) + "."])
    header = ["meta_prompt", "vanilla_prompt", "n1", "obj1", "n2", "obj2", "synthetic_prompt"]
    _csv(folder / "counting_prompts" / "synthetic_counting_prompts.csv", header, counting)


def _lines(path: Path, lines: list[str]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n")


def _csv(path: Path, header: list[str], rows: Sequence[Sequence[object]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows([header, *rows])


def write_coco(folder: Path, count: int, size: int, seed: int = 0) -> None:
    """Write `count` clean renders with two captions each: `train2017/*.png`, `annotations/captions_train2017.json`.

    None shows what a validation prompt of the same seed says.
    """
    rng, apart = random.Random(f"coco {seed}"), held_out(seed)
    part = folder.with_name(folder.name + ".part")
    shutil.rmtree(part, ignore_errors=True)
    (part / "train2017").mkdir(parents=True)
    (part / "annotations").mkdir()
    pictures: list[dict[str, object]] = []
    captions: list[dict[str, object]] = []
    for number in tqdm(range(1, count + 1), desc="render COCO images"):
        category = rng.choice(("color", "color", "spatial", "counting", "complex"))
        spec = sample_spec(category, rng)
        while key_of(spec) in apart:
            spec = sample_spec(category, rng)
        name = f"{number:012d}.png"
        Image.fromarray(render(scene_for(spec, rng), size)[0]).save(part / "train2017" / name)
        pictures.append({"id": number, "file_name": name, "width": size, "height": size})
        reordered = spec if spec.relation else replace(spec, groups=spec.groups[::-1])
        for caption in (describe(spec), describe(reordered)):
            captions.append({"id": len(captions) + 1, "image_id": number, "caption": caption})
    tables = {"images": pictures, "annotations": captions}
    (part / "annotations" / "captions_train2017.json").write_text(json.dumps(tables) + "\n")
    shutil.rmtree(folder, ignore_errors=True)
    part.rename(folder)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=("prompts", "coco"))
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--count", type=int, default=600)
    parser.add_argument("--size", type=int, default=128)
    options = parser.parse_args()
    if options.what == "prompts":
        write_prompts(options.out)
    else:
        write_coco(options.out, options.count, options.size)


if __name__ == "__main__":
    main()
