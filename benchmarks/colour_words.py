"""Which words of a prompt give an object its colour: the colour's own, the noun's, or none of them?

    python -m benchmarks.colour_words [--params params.yaml] [--base data/warmup] [--scenes 200]

Prompts of two coloured objects are drawn by the base from the same noise, with the embeddings of some of their words
taken from a prompt that says the same with two other colours. The oracle reads each object's colour: the prompt's own,
that of the other prompt, another, or there is no such object. Where the embeddings of nouns carry their colours, where
the words for colours are attended to (which Eq. 4 and 5 teach) decides little. `--base` is the folder of the warm-up.
"""

from __future__ import annotations

import argparse
import random
from collections import Counter
from dataclasses import replace
from pathlib import Path

from comat.diffusion.backbones import Backbone, PromptEmbeddings
from comat.diffusion.load import load_backbone
from comat.finished.generate import drawn
from comat.params import load
from comat.shapes.world.captions import describe
from comat.shapes.world.oracle import Detection, read_image
from comat.shapes.world.scenes import COLOURS, Group, Spec, sample_spec
from comat.storage.images import to_bytes

SAID = ("its own", "the other prompt's", "another", "no such object")
WAYS = {
    "none": (),
    "colours": ("colour",),
    "nouns": ("noun",),
    "colours and nouns": ("colour", "noun"),
    "all but these": ("rest",),
    "all": ("colour", "noun", "rest"),
}
"""Of which words the embeddings are the other prompt's; the pooled embedding goes with the rest."""


def pairs(count: int) -> list[tuple[Spec, Spec]]:
    """Two coloured objects, and the same in two other colours."""
    rng = random.Random("colour words")
    found = []
    for _ in range(count):
        spec = sample_spec("color", rng)
        free = [colour for colour in COLOURS if colour not in {group.colour for group in spec.groups}]
        others = rng.sample(free, len(spec.groups))
        groups = tuple(replace(group, colour=colour) for group, colour in zip(spec.groups, others, strict=True))
        found.append((spec, replace(spec, groups=groups)))
    return found


def mixed(backbone: Backbone, spec: Spec, other: Spec, taken: tuple[str, ...]) -> PromptEmbeddings:
    """The embeddings of `spec`'s prompt, (1, L, D), with those of the words `taken` from that of `other`."""
    own, theirs = (backbone.encode_prompts([describe(one)]) for one in (spec, other))
    said, also = (backbone.words(describe(one)) for one in (spec, other))
    assert len(said) == len(also), "a colour is one token"
    colours, nouns = {group.colour for group in spec.groups}, {group.noun for group in spec.groups}
    tokens = (theirs if "rest" in taken else own).tokens.clone()
    for column, word in enumerate(said):
        kind = "colour" if word in colours else "noun" if word in nouns else None
        if kind:
            tokens[:, column] = (theirs if kind in taken else own).tokens[:, column]
    return replace(theirs if "rest" in taken else own, tokens=tokens)


def colour_of(found: list[Detection], said: Group, other: Group) -> str:
    """Which of SAID the colour of an object is, among what the oracle has found."""
    colours = [one.colour for one in found if one.noun == said.noun]
    if not colours:
        return SAID[3]
    return SAID[0] if said.colour in colours else SAID[1] if other.colour in colours else SAID[2]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--params", type=Path, default=Path("params.yaml"))
    parser.add_argument("--base", type=Path, default=Path("data/warmup"), help="the folder of the warm-up")
    parser.add_argument("--scenes", type=int, default=200)
    options = parser.parse_args()
    params, asked = load(options.params), pairs(options.scenes)
    backbone = load_backbone(params, options.base)
    empty = backbone.encode_prompts([""])
    print(f"{'taken from the other prompt':<30}" + "".join(f"{name:>20}" for name in SAID))
    for way, taken in WAYS.items():
        stored = {describe(spec): mixed(backbone, spec, other, taken) for spec, other in asked}
        backbone.stored = lambda prompt, stored=stored: stored[prompt] if prompt else empty
        images = drawn(params, backbone, [describe(spec) for spec, _ in asked], [0])
        backbone.stored = None
        counts: Counter[str] = Counter()
        for image, (spec, other) in zip(images, asked, strict=True):
            found = read_image(to_bytes(image))
            counts.update(map(colour_of, [found] * len(spec.groups), spec.groups, other.groups))
        shares = "".join(f"{100 * counts[name] / counts.total():>19.1f}%" for name in SAID)
        print(f"{way:<30}{shares}", flush=True)


if __name__ == "__main__":
    main()
