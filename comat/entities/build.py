"""The entity table: parsed, filtered, aligned with the tokens of every tokenizer."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from ruamel.yaml import YAML
from tqdm import tqdm
from transformers import PreTrainedTokenizerBase

from comat.diffusion.tokenizers import is_too_long
from comat.entities.parse import ParsedEntity, load_parser, parse_all
from comat.entities.tokens import token_positions

FILTER = Path(__file__).with_name("filtered_nouns.yaml")


def filtered_nouns(path: Path = FILTER) -> dict[str, str]:
    """Lemma → the class it is filtered for."""
    classes = YAML(typ="safe").load(path.read_text(encoding="utf-8"))
    return {noun: reason for reason, nouns in classes.items() for noun in nouns}


def reasons(entities: Sequence[ParsedEntity], filtered: dict[str, str]) -> list[str | None]:
    """Why each entity of a prompt is dropped, or None. Equal nouns cannot be told apart by a mask (Sec. 6)."""
    counts = Counter(entity.lemma for entity in entities)
    return ["duplicate noun" if counts[e.lemma] > 1 else filtered.get(e.lemma) for e in entities]


def entity_rows(
    prompts: Sequence[tuple[str, str]], spacy_model: str, batch_size: int, tokenizers: Sequence[PreTrainedTokenizerBase]
) -> tuple[list[dict], dict]:
    """The rows of `entities.parquet` for (id, text) pairs, and a report of what was dropped and why."""
    parser, filtered = load_parser(spacy_model), filtered_nouns()
    rows, dropped, without, too_long = [], Counter(), 0, 0
    parsed = parse_all(parser, (text for _, text in prompts), batch_size)
    for (id, text), entities in tqdm(zip(prompts, parsed, strict=True), total=len(prompts), desc="entities"):
        kept = 0
        for number, (entity, reason) in enumerate(zip(entities, reasons(entities, filtered), strict=True)):
            groups = [[entity.noun_span], [entity.noun_span, *entity.attribute_spans]]
            positions = [token_positions(tokenizer, text, groups) for tokenizer in tokenizers]
            if reason is None and not all(noun for noun, _ in positions):
                reason = "cut off by the text encoder's length"
            dropped[reason] += reason is not None
            kept += reason is None
            row = {"prompt_id": id, "entity": number, "noun": entity.noun, "lemma": entity.lemma}
            row |= {"attributes": list(entity.attributes), "kept": reason is None, "reason": reason}
            row |= {"noun_tokens": [noun for noun, _ in positions], "tokens": [every for _, every in positions]}
            rows.append(row)
        without += kept == 0
        too_long += is_too_long(tokenizers, text)
    report = {
        "prompts": len(prompts),
        "entities": len(rows),
        "kept": sum(row["kept"] for row in rows),
        "prompts_without_entities": without,
        "prompts_too_long": too_long,  # the text encoder does not read their ends
        "dropped": {reason: count for reason, count in sorted(dropped.items(), key=str) if reason},
    }
    return rows, report
