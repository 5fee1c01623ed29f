"""A corpus for people to read, before anything is written."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from comat.corpora.build import Corpus, build_corpus, check_held_out
from comat.corpora.overview import some
from comat.corpora.own.sources import own_sources
from comat.errors import UserError
from comat.params import Params
from comat.tokenizers import load_tokenizers


def show_prompts(
    params: Params,
    files: Sequence[Path],
    column: str | None,
    hold_out: float,
    as_json: bool,
) -> None:
    """Print what the stage `prompts` would write of `files`, or, without any, of the sources of the parameters.

    Raises:
        UserError: as the stage would.
    """
    console = Console(highlight=False)
    section = params.prompts
    if files:
        section = section.model_copy(update={"sources": own_sources(files, column, hold_out)})
    corpus = build_corpus(section, params.seed, load_tokenizers(params.base_model, params.base_revision))
    if as_json:
        print(json.dumps(corpus.report, indent=2, ensure_ascii=False))
        return
    show_corpus(corpus, params.seed, console)
    try:
        check_held_out(corpus.report, params.samples.benchmarks)
    except UserError as error:
        console.print(Text(f"note: {error}", "yellow"), soft_wrap=True)


def show_corpus(corpus: Corpus, seed: int, console: Console) -> None:
    """Print a corpus: the numbers of its report, and of what was dropped some examples."""
    report = corpus.report
    table = Table("source", "read", "training", "held out", "dropped", box=None, pad_edge=False)
    for name, entry in report["sources"].items():
        dropped = ", ".join(f"{count} {reason}" for reason, count in entry["dropped"].items()) or "none"
        table.add_row(
            Text(name), *map(str, (entry["read"], entry["kept"] - entry["held_out"], entry["held_out"])), dropped
        )
    console.print(table)
    tokens, total = report["tokens"], report["total"]
    lines = [
        f"tokens: median {tokens['median']}, 95% up to {tokens['p95']}, longest {tokens['max']}; "
        f"{total['too_long']} prompts are longer than the {tokens['limit']} that the text encoder reads",
        f"languages, guessed: {', '.join(f'{name} {count}' for name, count in report['languages'].items())}",
    ]
    for name, entry in report["evaluation"].items():
        lines.append(
            f"kept out of training by {name} ({entry['prompts']} prompts): {entry['exact']} equal, {entry['near']} near"
        )
    for name, texts in report["examples"].items():
        lines += [f"{name}:", *(f"  {text}" for text in texts)]
    for reason, rows in _by_reason(corpus.dropped, seed).items():
        lines += [f"dropped, {reason}:", *(f"  {_dropped(row)}" for row in rows)]
    for line in lines:
        console.print(Text(line), soft_wrap=True)


def _by_reason(dropped: Sequence[dict], seed: int) -> dict[str, list[dict]]:
    """Some of what was dropped, by reason."""
    found: dict[str, list[dict]] = {}
    for row in dropped:
        found.setdefault(row["reason"], []).append(row)
    return {reason: some(rows, seed, reason) for reason, rows in found.items()}


def _dropped(row: dict) -> str:
    return f"{row['text']!r}" + (f", {row['evaluation']} has {row['match']!r}" if row["match"] else "")
