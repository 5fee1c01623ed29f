"""The entity table: parsed, filtered, aligned with the tokens of every tokenizer."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from operator import itemgetter
from pathlib import Path

from tqdm import tqdm
from transformers import PreTrainedTokenizerBase

from comat.entities.filter import filtered_nouns, reasons
from comat.entities.parse import ParsedEntity, load_parser, parse_all
from comat.entities.tokens import Tokens, tokens_of
from comat.params import BaseModelParams, EntitiesParams
from comat.randomness import python_random, stratified
from comat.storage.prompt_language import ENGLISH, language
from comat.storage.prompt_syntax import without_syntax
from comat.tokenizers import load_tokenizers

Parsed = tuple[str, str, Sequence[ParsedEntity]]
"""A prompt's id, text and entities."""

BATCH = 256
"""Prompts tokenized at once: one by one the call costs more than the work."""
SHOWN = 20
"""Nouns and prompts that the report shows for a person to look at."""


def find_entities(
    section: EntitiesParams,
    base: BaseModelParams,
    texts: Sequence[tuple[str, str]],
    categories: Mapping[str, str],
    seed: int,
) -> tuple[list[dict], dict]:
    """`entity_rows` of texts with their ids, parsed and filtered as the parameters say.

    Raises:
        UserError: if the parser, the tokenizers or the list of nouns cannot be had.
    """
    filtered = filtered_nouns(Path(section.own_filter) if section.own_filter else None)
    tokenizers = load_tokenizers(base.base_model, base.base_revision)
    parser = load_parser(section.spacy_model)
    found = parse_all(parser, [text for _, text in texts], section.batch_size, section.processes)
    parsed = ((id, text, entities) for (id, text), entities in zip(texts, found, strict=True))
    return entity_rows(parsed, len(texts), filtered, tokenizers, categories, seed)


def entity_rows(
    parsed: Iterable[Parsed],
    total: int,
    filtered: Mapping[str, str | None],
    tokenizers: Sequence[PreTrainedTokenizerBase],
    categories: Mapping[str, str],
    seed: int,
) -> tuple[list[dict], dict]:
    """The rows of `entities.parquet`, and a report of what was found, and of what was dropped and why.

    Args:
        total: prompts.
        categories: of prompts by their ids; from them the prompts without entities that are shown are drawn.
    """
    rows: list[dict] = []
    without: list[tuple[str, str]] = []
    too_long = denied = with_syntax = 0
    languages: Counter[str] = Counter()
    syntax: Counter[str] = Counter()
    for (id, text, entities), tokens in _with_tokens(tqdm(parsed, total=total, desc="entities"), tokenizers):
        spoken = language(text)
        found = [{"prompt_id": id, **row} for row in rows_of(entities, filtered, tokens, spoken)]
        rows += found
        without += [] if any(row["kept"] for row in found) else [(categories.get(id, ""), text)]
        too_long += any(one.are_cut for one in tokens)
        denied += sum(len(entity.denied) for entity in entities)
        languages[spoken] += 1
        removed = without_syntax(text).removed
        syntax += removed
        with_syntax += bool(removed)
    shown = stratified(without, SHOWN, itemgetter(0), python_random(seed, "without entities"))
    dropped = Counter(row["reason"] for row in rows if row["reason"])
    report = {
        "prompts": total,
        "entities": len(rows),
        "kept": sum(row["kept"] for row in rows),
        "prompts_without_entities": len(without),
        "prompts_too_long": too_long,  # the text encoder does not read their ends
        "dropped": dict(sorted(dropped.items())),
        "attributes_negated": denied,
        "languages": dict(languages.most_common()),
        "syntax": {"prompts": with_syntax, "found": dict(sorted(syntax.items()))},
        "most_kept": _most((row["lemma"],) for row in rows if row["kept"]),
        "most_dropped": _most((row["lemma"], row["reason"]) for row in rows if row["reason"]),
        "without_entities": [text for _, text in shown],
    }
    return rows, report


def _with_tokens(
    parsed: Iterable[Parsed], tokenizers: Sequence[PreTrainedTokenizerBase]
) -> Iterator[tuple[Parsed, Sequence[Tokens]]]:
    """Each prompt with its tokens by each tokenizer."""
    rest = iter(parsed)
    while batch := list(islice(rest, BATCH)):
        by_tokenizer = [tokens_of(tokenizer, [text for _, text, _ in batch]) for tokenizer in tokenizers]
        yield from ((one, [tokens[place] for tokens in by_tokenizer]) for place, one in enumerate(batch))


def _most(keys: Iterable[tuple[str, ...]]) -> list[dict]:
    """The most frequent nouns, with the reason why they are dropped; equal numbers by name."""
    counts = sorted(Counter(keys).items(), key=lambda item: (-item[1], item[0]))
    return [{**dict(zip(("noun", "reason"), key, strict=False)), "count": count} for key, count in counts[:SHOWN]]


def rows_of(
    entities: Sequence[ParsedEntity], filtered: Mapping[str, str | None], tokens: Sequence[Tokens], spoken: str
) -> list[dict]:
    """A prompt's entities as rows, without the prompt's id.

    Args:
        tokens: of the prompt, by each tokenizer.
        spoken: its language.
    """
    foreign = "not English" if spoken != ENGLISH else None
    rows = []
    for number, (entity, why) in enumerate(zip(entities, reasons(entities, filtered), strict=True)):
        reason = foreign or why
        noun_tokens = [one.of([entity.noun_span]) for one in tokens]
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
                "tokens": [one.of([entity.noun_span, *entity.attribute_spans]) for one in tokens],
                "kept": reason is None,
                "reason": reason,
            }
        )
    return rows
