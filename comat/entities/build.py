"""The entity table: parsed, filtered, aligned with the tokens of every tokenizer."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from tqdm import tqdm
from transformers import PreTrainedTokenizerBase

from comat.entities.filter import reasons
from comat.entities.parse import ParsedEntity
from comat.entities.tokens import token_positions
from comat.tokenizers import is_too_long

Parsed = tuple[str, str, Sequence[ParsedEntity]]
"""A prompt's id, text and entities."""


def entity_rows(
    parsed: Iterable[Parsed],
    total: int,
    filtered: Mapping[str, str | None],
    tokenizers: Sequence[PreTrainedTokenizerBase],
) -> tuple[list[dict], dict]:
    """The rows of `entities.parquet`, and a report of what was dropped and why. `total`: prompts."""
    rows, without, too_long = [], 0, 0
    for id, text, entities in tqdm(parsed, total=total, desc="entities"):
        found = [{"prompt_id": id, **row} for row in rows_of(text, entities, filtered, tokenizers)]
        rows += found
        without += not any(row["kept"] for row in found)
        too_long += is_too_long(tokenizers, text)
    dropped = Counter(row["reason"] for row in rows if row["reason"])
    report = {
        "prompts": total,
        "entities": len(rows),
        "kept": sum(row["kept"] for row in rows),
        "prompts_without_entities": without,
        "prompts_too_long": too_long,  # the text encoder does not read their ends
        "dropped": dict(sorted(dropped.items())),
    }
    return rows, report


def rows_of(
    text: str,
    entities: Sequence[ParsedEntity],
    filtered: Mapping[str, str | None],
    tokenizers: Sequence[PreTrainedTokenizerBase],
) -> list[dict]:
    """A prompt's entities as rows, without the prompt's id."""
    nouns = [[entity.noun_span] for entity in entities]
    wholes = [[entity.noun_span, *entity.attribute_spans] for entity in entities]
    positions = [token_positions(tokenizer, text, nouns + wholes) for tokenizer in tokenizers]
    rows = []
    for number, (entity, reason) in enumerate(zip(entities, reasons(entities, filtered), strict=True)):
        noun_tokens = [found[number] for found in positions]
        if reason is None and not all(noun_tokens):
            reason = "cut off by the text encoder's length"
        rows.append(
            {
                "entity": number,
                "noun": entity.noun,
                "lemma": entity.lemma,
                "attributes": list(entity.attributes),
                "numerals": list(entity.numerals),
                "noun_tokens": noun_tokens,
                "tokens": [found[len(entities) + number] for found in positions],
                "kept": reason is None,
                "reason": reason,
            }
        )
    return rows
