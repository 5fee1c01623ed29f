"""The prompts of published benchmarks, from the files that hold their questions or metadata."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

from comat.corpora.files import csv_rows, lines_of, text_of
from comat.corpora.text import prompt_id
from comat.errors import UserError
from comat.params import BenchmarkFiles


def benchmark_prompts(files: BenchmarkFiles) -> list[dict]:
    """Rows of `PROMPTS`, each prompt of a file once and letter for letter; `source` is the benchmark's name.

    Raises:
        UserError: if a file is missing or not of the published format; names the item.
    """
    rows: dict[str, dict] = {}
    for source, read in READERS.items():
        path = getattr(files, source)
        for text, category in read(Path(path)) if path else ():
            id = prompt_id(text, source)
            rows[id] = {"id": id, "text": text, "source": source, "category": category, "split": "test"}
    return list(rows.values())


def _tifa(path: Path) -> Iterator[tuple[str, str]]:
    """TIFA v1.0: a JSON array of questions, each with its caption."""
    items = _parsed(text_of(path), f"{path}")
    if not isinstance(items, list):
        raise UserError(f"{path}: expected an array of questions, got {type(items).__name__}")
    for number, item in enumerate(items, 1):
        yield _string(item, "caption", f"{path}, item {number}"), "tifa"


def _dpg(path: Path) -> Iterator[tuple[str, str]]:
    """DPG-Bench: a CSV of questions, each with its prompt."""
    columns, rows = csv_rows(path)
    if "text" not in columns:
        raise UserError(f"{path}: no column 'text', there are {columns}; expected DPG-Bench's dpg_bench.csv")
    for _, row in rows:
        yield row["text"], "dpg"


def _geneval(path: Path) -> Iterator[tuple[str, str]]:
    """GenEval: a line of JSON for every prompt; its tag is the category."""
    for number, line in lines_of(path):
        where = f"{path}, line {number}"
        item = _parsed(line, where)
        yield _string(item, "prompt", where), _string(item, "tag", where)


READERS: dict[str, Callable[[Path], Iterator[tuple[str, str]]]] = {"tifa": _tifa, "dpg": _dpg, "geneval": _geneval}


def _parsed(text: str, where: str) -> object:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{where}: not JSON ({error})") from None


def _string(item: object, key: str, where: str) -> str:
    value = item.get(key) if isinstance(item, dict) else None
    if not isinstance(value, str) or not value.strip():
        raise UserError(f"{where}: expected an object with a string {key!r}, got {item!r:.60}")
    return value
