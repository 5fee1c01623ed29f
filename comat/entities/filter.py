"""Which entities are kept (Sec. 4.2): nouns that a mask can be found for, each once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from comat.entities.parse import ParsedEntity
from comat.errors import UserError, clean
from comat.storage.yaml_files import read_bounded, shown

FILTER = Path(__file__).with_name("filtered_nouns.yaml")
KEEP = "keep"


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
    filtered = {}
    for reason, nouns in classes.items():
        if not isinstance(nouns, list) or not all(isinstance(noun, str) for noun in nouns):
            came = f"{clean(reason, 60)} is {shown(nouns)}"
            raise UserError(f'{path}: {came}; {expected}; quote words like "on" and "no"')
        filtered |= {noun.lower(): None if reason == KEEP else str(reason) for noun in nouns}
    return filtered


def reasons(entities: Sequence[ParsedEntity], filtered: dict[str, str | None]) -> list[str | None]:
    """Why each entity of a prompt is dropped, or None. Equal nouns cannot be told apart by a mask (Sec. 6)."""
    found = ["quoted text" if entity.quoted else _class(entity, filtered) for entity in entities]
    counts = Counter(entity.lemma for entity, reason in zip(entities, found, strict=True) if reason is None)
    return [
        reason or ("duplicate noun" if counts[e.lemma] > 1 else None) for e, reason in zip(entities, found, strict=True)
    ]


def _class(entity: ParsedEntity, filtered: dict[str, str | None]) -> str | None:
    phrases = (f"{attribute.lower()} {entity.lemma}" for attribute in entity.attributes)
    key = next((phrase for phrase in phrases if phrase in filtered), entity.lemma)
    return filtered.get(key)
