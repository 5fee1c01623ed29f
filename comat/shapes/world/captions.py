"""Captions of the world: a spec as words, and words back as a spec."""

from __future__ import annotations

import re

from comat.shapes.world.scenes import COLOURS, MAX_OBJECTS, NOUNS, RELATIONS, SIZES, Group, Spec

NUMBERS = {"two": 2, "three": 3}
_SIZE_WORDS = tuple(size for size in SIZES if size)


def plural(noun: str) -> str:
    """ "balls", "crosses"."""
    return noun + ("es" if noun.endswith("s") else "s")


_SINGULARS = {plural(noun): noun for noun in NOUNS}


def describe_group(group: Group) -> str:
    """ "a small red ball", "two blue crosses"; silent about what the group leaves open."""
    words = [word for word in (group.size, group.colour) if word]
    if group.count > 1:
        number = next(word for word, value in NUMBERS.items() if value == group.count)
        return " ".join([number, *words, plural(group.noun)])
    words.append(group.noun)
    return " ".join(["an" if words[0][0] in "aeiou" else "a", *words])


def describe(spec: Spec) -> str:
    """The caption of `spec`: "a red ball on the left of a blue cube", "a red ball, a blue cube and a star"."""
    parts = [describe_group(group) for group in spec.groups]
    if spec.relation:
        return f"{parts[0]} {spec.relation} {parts[1]}"
    if len(parts) == 1:
        return parts[0]
    return ", ".join(parts[:-1]) + " and " + parts[-1]


def parse_prompt(text: str) -> Spec:
    """The spec that `text` asks for: the inverse of `describe`, forgiving about case, dots and doubled spaces.

    Raises:
        ValueError: if the text is not a caption of this world; names the words that were not understood.
    """
    plain = re.sub(r"[\s.]+", " ", text.lower()).strip()
    relation = next((r for r in RELATIONS if f" {r} " in plain), None)
    separator = rf" {relation} " if relation else r"(?:, and |, | and )"
    groups = tuple(_parse_group(part, text) for part in re.split(separator, plain))
    spec = Spec(groups, relation)
    if spec.total > MAX_OBJECTS or (relation and len(groups) != 2):
        raise ValueError(f"prompt {text!r} asks for {spec.total} objects; the shapes world draws one to {MAX_OBJECTS}")
    return spec


def _parse_group(part: str, text: str) -> Group:
    words = part.split()
    count = NUMBERS.get(words[0], 1 if words[0] in ("a", "an", "one") else 0) if words else 0
    noun = (_SINGULARS.get(words[-1]) if count > 1 else words[-1]) if words else None
    middle = words[1:-1]
    size = middle.pop(0) if middle and middle[0] in _SIZE_WORDS else None
    colour = middle.pop(0) if middle and middle[0] in COLOURS else None
    if not count or noun not in NOUNS or middle:
        raise ValueError(
            f"prompt {text!r}: cannot read {part!r}; expected a/an/two/three [{'|'.join(_SIZE_WORDS)}] "
            f"[{'|'.join(COLOURS)}] {'|'.join(NOUNS)}"
        )
    return Group(noun, colour, size, count)
