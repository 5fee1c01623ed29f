"""Which entities are kept (Sec. 4.2): nouns that a mask can be found for, each once."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from comat.entities.parse import ParsedEntity
from comat.errors import UserError, clean
from comat.storage.yaml_files import read_bounded, shown

FILTER = Path(__file__).with_name("filtered_nouns.yaml")
KEEP = "keep"
_MEASURE = re.compile(r"[f/\d.]*\d(?:k|mm|px|p|hz|fps|mp|cm|m|d|s|x|st|nd|rd|th|-bit)?|[a-z]")
"""What stands for a size of the picture, a lens or a rank ("8k", "35mm", "f/1.8"), and single letters."""


def filtered_nouns(own: Path | None = None) -> dict[str, str | None]:
    """Lemma, or attribute and lemma ("traffic light"), → the class it is filtered for, or None where it is kept.

    A user's own list adds to the project's, and overrules it.

    Raises:
        UserError: if the own list is missing or malformed.
    """
    return _read(FILTER) | (_read(own) if own else {})


def _read(path: Path) -> dict[str, str | None]:
    expected = f"expected classes, each with a list of nouns, or {KEEP!r} with a list of those to keep"
    try:
        classes = read_bounded(str(path), path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: not readable ({' '.join(str(error).split())}); {expected}") from None
    except UserError as error:
        raise UserError(f"{error}; {expected}") from None
    if not isinstance(classes, dict):
        raise UserError(f"{path}: got {type(classes).__name__}; {expected}")
    filtered: dict[str, str | None] = {}
    for reason, nouns in classes.items():
        if not isinstance(nouns, list) or not all(isinstance(noun, str) for noun in nouns):
            came = f"{clean(reason, 60)} is {shown(nouns)}"
            raise UserError(f'{path}: {came}; {expected}; quote words like "on" and "no"')
        filtered |= {noun.lower(): None if reason == KEEP else str(reason) for noun in nouns}
    return filtered


def reasons(entities: Sequence[ParsedEntity], filtered: Mapping[str, str | None]) -> list[str | None]:
    """Why each entity of a prompt is dropped, or None. Equal nouns cannot be told apart by a mask (Sec. 6).

    Those that name one thing again do not count: its first mention stands for it.
    """
    found = [_reason(entity, filtered) for entity in entities]
    counts = Counter(e.lemma for e, reason in zip(entities, found, strict=True) if reason is None and not e.again)
    named: set[str] = set()
    why = []
    for entity, reason in zip(entities, found, strict=True):
        is_again = entity.again and entity.lemma in named
        own = "duplicate noun" if counts[entity.lemma] > 1 else "named before" if is_again else None
        why.append(reason or own)
        named |= {entity.lemma} if reason is None else set()
    return why


def _reason(entity: ParsedEntity, filtered: Mapping[str, str | None]) -> str | None:
    if entity.quoted:
        return "quoted text"
    if entity.negated:
        return "negated"
    return _class(entity, filtered) or ("style" if entity.is_style else None)


def _class(entity: ParsedEntity, filtered: Mapping[str, str | None]) -> str | None:
    """By attribute and lemma, else by the noun as written ("scales"), else by its lemma."""
    noun = entity.noun.lower()
    phrases = (f"{attribute.lower()} {entity.lemma}" for attribute in entity.attributes)
    key = next((phrase for phrase in (*phrases, noun) if phrase in filtered), entity.lemma)
    return "abstract" if _MEASURE.fullmatch(noun) else filtered.get(key)
