"""A prompt's entities for people to read."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import zip_longest
from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from comat.entities.build import find_entities, rows_of
from comat.entities.filter import filtered_nouns
from comat.entities.parse import ParsedEntity, load_parser, parse
from comat.entities.tokens import tokens_of
from comat.errors import clean
from comat.params import BaseModelParams, EntitiesParams
from comat.storage.prompt_language import language
from comat.tokenizers import load_tokenizers

NOUN, ATTRIBUTE, NUMERAL, DROPPED = "bold green", "cyan", "yellow", "dim strike"


def show_entities(section: EntitiesParams, base: BaseModelParams, prompt: str, console: Console | None = None) -> None:
    """Print the prompt in colour, then a line for each noun: attributes, numerals, tokens, or why it is dropped."""
    console, own = console or Console(), section.own_filter
    filtered = filtered_nouns(Path(own) if own else None)
    entities = parse(load_parser(section.spacy_model), prompt)
    tokenizers = load_tokenizers(base.base_model, base.base_revision)
    tokens_read = [tokens_of(tokenizer, [prompt])[0] for tokenizer in tokenizers]
    rows = rows_of(entities, filtered, tokens_read, language(prompt))
    console.print(_coloured(prompt, entities, rows), soft_wrap=True)
    table = Table(
        "noun", "attributes", "numerals", *_token_titles(len(tokenizers)), "filtered", box=None, pad_edge=False
    )
    for entity, row in zip(entities, rows, strict=True):
        tokens = [_ranges(positions) for positions in row["tokens"]]
        cells = [
            Text(row["noun"], NOUN if row["kept"] else DROPPED),
            Text(", ".join(entity.attributes), ATTRIBUTE if row["kept"] else DROPPED),
            Text(", ".join(entity.numerals), NUMERAL if row["kept"] else DROPPED),
        ]
        table.add_row(*cells, *(tokens if row["kept"] else [""] * len(tokens)), Text(clean(row["reason"] or "")))
    console.print(table if rows else "no nouns")
    if any(one.are_cut for one in tokens_read):
        console.print("the prompt is longer than the text encoder reads: its end has no tokens", style="red")


def show_all_entities(
    section: EntitiesParams, base: BaseModelParams, prompts: Sequence[str], console: Console | None = None
) -> None:
    """Print what a person would check of many prompts before training: the report of the stage `entities`."""
    console = console or Console(highlight=False)
    _, report = find_entities(section, base, [("", text) for text in prompts], {}, seed=0)
    for name in ("prompts", "entities", "kept", "attributes_negated", "prompts_too_long"):
        console.print(f"{name.replace('_', ' ')}: {report[name]}")
    counted = {"dropped": report["dropped"], "languages": report["languages"], "syntax": report["syntax"]["found"]}
    for name, counts in counted.items():
        if counts:
            console.print(f"{name}: " + ", ".join(f"{key} {count}" for key, count in counts.items()), soft_wrap=True)
    table = Table("kept most", "", "dropped most", "", "reason", box=None, pad_edge=False)
    rows: Iterable[tuple[dict, dict]] = zip_longest(report["most_kept"], report["most_dropped"], fillvalue={})
    for kept, dropped in rows:
        cells = [Text(str(row.get(key, ""))) for row, key in ((kept, "noun"), (kept, "count"))]
        table.add_row(*cells, *(Text(str(dropped.get(key, ""))) for key in ("noun", "count", "reason")))
    console.print(table)
    console.print(f"prompts without entities: {report['prompts_without_entities']}")
    for text in report["without_entities"]:
        console.print(Text(f"  {text}", DROPPED.removesuffix(" strike")), soft_wrap=True)


def _coloured(prompt: str, entities: list[ParsedEntity], rows: list[dict]) -> Text:
    text = Text(prompt)
    for entity, row in zip(entities, rows, strict=True):
        styles = (NOUN, ATTRIBUTE, NUMERAL) if row["kept"] else (DROPPED,) * 3
        for style, spans in zip(
            styles, ([entity.noun_span], entity.attribute_spans, entity.numeral_spans), strict=True
        ):
            for span in spans:
                text.stylize(style, *span)
    return text


def _ranges(positions: list[int]) -> str:
    """ "2-4 7": runs of positions."""
    starts = [p for p in positions if p - 1 not in positions]
    ends = [p for p in positions if p + 1 not in positions]
    return " ".join(f"{a}-{b}" if b > a else str(a) for a, b in zip(starts, ends, strict=True))


def _token_titles(count: int) -> list[str]:
    return ["tokens"] if count == 1 else [f"tokens {number + 1}" for number in range(count)]
