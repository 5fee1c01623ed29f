"""YAML of others: what would grow without bound when it is read is refused before it does."""

from __future__ import annotations

import reprlib
from collections.abc import Iterator

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError
from ruamel.yaml.events import AliasEvent, CollectionEndEvent, CollectionStartEvent, Event, ScalarEvent

from comat.errors import UserError, clean

DEEPEST = 32  # collections within collections
MOST = 100_000  # values, those of aliases counted each time
LONGEST = 2048  # characters of a value

_SHORT = reprlib.Repr()
_SHORT.maxlevel, _SHORT.maxstring, _SHORT.maxother = 2, 60, 60


def shown(value: object) -> str:
    """A value as an error message may echo it: short, whatever it holds."""
    return clean(_SHORT.repr(value), 200)


def read_bounded(name: str, text: str) -> object:
    """What YAML 1.2 says. (PyYAML would read 1e-05, as DVC writes it, as a string.)

    Raises:
        UserError: if it is not YAML, nested deeper than 32 levels, or of more than 100,000 values; says that of `name`.
    """
    try:
        _measure(YAML(typ="safe", pure=True).parse(text))
        return YAML(typ="safe").load(text)
    except UserError as error:
        raise UserError(f"{name}: {error}") from None
    # Dates and numbers that are none are errors of other kinds.
    except (YAMLError, ValueError, TypeError, ArithmeticError, RecursionError) as error:
        raise UserError(f"{name}: not readable as YAML: {clean(' '.join(str(error).split()), 500)}") from None


def _measure(events: Iterator[Event]) -> None:
    """See that what the events would build is bounded; the size of an anchored value counts at each of its aliases."""
    sizes: dict[str, int] = {}
    begun: list[tuple[str | None, int]] = []
    total = 0
    for event in events:
        if isinstance(event, CollectionStartEvent):
            begun.append((event.anchor, total))
            total += 1
        elif isinstance(event, CollectionEndEvent):
            anchor, before = begun.pop()
            if anchor:
                sizes[anchor] = total - before
        elif isinstance(event, AliasEvent):
            if any(anchor == event.anchor for anchor, _ in begun):
                raise UserError(f"the value of {shown(event.anchor)} holds itself")
            total += sizes.get(event.anchor, 1)
        elif isinstance(event, ScalarEvent):
            total += 1
            if len(event.value) > LONGEST:
                raise UserError(f"a value of {len(event.value)} characters, {shown(event.value)}; at most {LONGEST}")
        if len(begun) > DEEPEST:
            raise UserError(f"nested deeper than {DEEPEST} levels")
        if total > MOST:
            raise UserError(f"more than {MOST:,} values, aliases written out")
