"""Scenes: what is in an image, and where.

Lengths are fractions of the image side; `x` grows to the right and `y` downwards, as in an image.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

NOUNS = ("ball", "cube", "cone", "star", "cross", "ring")
COLOURS: dict[str, tuple[int, int, int]] = {
    "red": (215, 40, 45),
    "orange": (250, 140, 25),
    "yellow": (245, 220, 50),
    "green": (45, 160, 70),
    "blue": (40, 85, 220),
    "purple": (130, 50, 175),
    "pink": (248, 140, 195),
    "black": (35, 35, 40),
}
BACKGROUND = (243, 243, 240)
SIZES: dict[str | None, tuple[float, float]] = {"small": (0.105, 0.125), None: (0.135, 0.16), "big": (0.18, 0.205)}
"""Radius range of each size word; None is a size that no word names."""

RELATIONS = ("on the left of", "on the right of", "above", "below")
MAX_OBJECTS = 3


@dataclass(frozen=True)
class Group:
    """What a prompt says of one noun: `count` objects of one colour and size; None where the prompt is silent."""

    noun: str
    colour: str | None = None
    size: str | None = None
    count: int = 1


@dataclass(frozen=True)
class Spec:
    """What a prompt asks for: groups, and the relation of the first group to the second, if any."""

    groups: tuple[Group, ...]
    relation: str | None = None

    @property
    def total(self) -> int:
        """Number of objects asked for."""
        return sum(group.count for group in self.groups)


@dataclass(frozen=True)
class Object:
    """One object of a scene: centre (`x`, `y`) and radius `r` in fractions of the image side."""

    noun: str
    colour: str
    x: float
    y: float
    r: float


@dataclass(frozen=True)
class Scene:
    objects: tuple[Object, ...]


def holds(relation: str, first: tuple[float, float], second: tuple[float, float], slack: float = 1.0) -> bool:
    """Whether `first` stands in `relation` to `second` (centres as (x, y)).

    The axis of the relation must dominate: |dx| > slack·|dy| for left and right, and the other way round.
    """
    dx, dy = first[0] - second[0], first[1] - second[1]
    along, across, sign = {
        "on the left of": (dx, dy, -1),
        "on the right of": (dx, dy, 1),
        "above": (dy, dx, -1),
        "below": (dy, dx, 1),
    }[relation]
    return along * sign > 0 and abs(along) > slack * abs(across)


def scene_for(spec: Spec, rng: random.Random) -> Scene:
    """Place the objects of `spec` without overlap, by rejection; a group without a colour gets one by chance."""
    kinds = []
    for index, group in enumerate(spec.groups):
        colour = group.colour or rng.choice(list(COLOURS))
        kinds += [(index, group.noun, colour, SIZES[group.size])] * group.count
    while True:
        objects: list[tuple[int, Object]] = []
        for index, noun, colour, (low, high) in kinds:
            for _ in range(20):
                r = rng.uniform(low, high)
                margin = 1.2 * r + 0.02
                x, y = rng.uniform(margin, 1 - margin), rng.uniform(margin, 1 - margin)
                if all((x - o.x) ** 2 + (y - o.y) ** 2 > (1.25 * (r + o.r) + 0.02) ** 2 for _, o in objects):
                    objects.append((index, Object(noun, colour, x, y, r)))
                    break
        if len(objects) == len(kinds) and _related(spec, objects):
            return Scene(tuple(o for _, o in objects))


def _related(spec: Spec, objects: list[tuple[int, Object]]) -> bool:
    if spec.relation is None:
        return True
    firsts = [(o.x, o.y) for index, o in objects if index == 0]
    seconds = [(o.x, o.y) for index, o in objects if index == 1]
    return all(holds(spec.relation, a, b, slack=1.3) for a in firsts for b in seconds)


def sample_spec(category: str, rng: random.Random) -> Spec:
    """Draw a uniform spec of one category: "single", "color", "spatial", "counting" or "complex".

    Raises:
        ValueError: for another category.
    """
    nouns = rng.sample(NOUNS, 3)
    colours = rng.sample(list(COLOURS), 3)
    first, second, third = (Group(noun, colour) for noun, colour in zip(nouns, colours, strict=True))
    if category == "single":
        return Spec((first,))
    if category == "color":
        return Spec((first, second))
    if category == "spatial":
        return Spec((first, second), rng.choice(RELATIONS))
    if category == "counting":
        count = rng.choice((2, 2, 3))
        many = Group(first.noun, first.colour, count=count)
        return Spec((many,)) if count == 3 or rng.random() < 0.5 else Spec((many, second))
    if category == "complex":
        if rng.random() < 0.5:
            return Spec((first, second, third))
        sizes = rng.sample(("small", "big"), 2)
        pair = tuple(Group(g.noun, g.colour, size) for g, size in zip((first, second), sizes, strict=True))
        return Spec(pair, rng.choice((None, *RELATIONS)))
    raise ValueError(f"unknown category {category!r}: expected single, color, spatial, counting or complex")
