"""Readers of the published formats. Each yields prompts in the order of the files and drops nothing."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

from comat.errors import UserError
from comat.params import PromptSource
from comat.storage.prompt_text import Prompt, csv_rows, files_in, lines_of, whole

HRS_COLUMNS = ("synthetic_prompt", "original_prompts", "meta_prompt")
"""Columns that can hold the prompts of a file, best first; the first that is not blank throughout holds them.

Where `synthetic_prompt` is filled, `meta_prompt` is the instruction that it was written from, and no prompt.
"""


def read_t2i_compbench(source: PromptSource) -> Iterator[Prompt]:
    """T2I-CompBench: `<category>_train.txt` and `<category>_val.txt`, the latter held out.

    The `_val_seen` and `_val_unseen` lists repeat `_val` and are left alone, as is everything else in the folder.
    """
    expected = "T2I-CompBench's lists, <category>_train.txt and <category>_val.txt"
    files = files_in(Path(source.path), "*.txt", source.leave_out, expected)
    named = [(file, match) for file in files if (match := re.fullmatch(r"(.+)_(train|val)", file.stem))]
    if not named:
        raise UserError(f"{source.path}: no <category>_train.txt or <category>_val.txt; expected {expected}")
    for file, match in named:
        for _, line in lines_of(file):
            yield Prompt(line, match[1], "train" if match[2] == "train" else "test")


def read_abc6k(source: PromptSource) -> Iterator[Prompt]:
    """ABC-6K: contrast pairs, one caption a line."""
    for _, line in lines_of(Path(source.path)):
        yield Prompt(line, "abc6k")


def read_hrs(source: PromptSource) -> Iterator[Prompt]:
    """HRS-Bench: CSVs at any depth, whose columns differ from file to file; the category is the CSV's folder."""
    folder = Path(source.path)
    for file in files_in(folder, "*.csv", source.leave_out, "the CSV files of HRS-Bench's generated_prompts"):
        columns, rows = csv_rows(file)
        known = [name for name in HRS_COLUMNS if name in columns]
        if not known:
            raise UserError(f"{file}: columns {columns}: expected one of {', '.join(HRS_COLUMNS)}")
        column = next((name for name in known if any(row[name].strip() for _, row in rows)), known[0])
        category = file.parent.name if file.parent != folder else file.stem
        for line, row in rows:
            for text in _cell(row[column], f"{file}, line {line}"):
                yield Prompt(text, category)


def _cell(cell: str, where: str) -> list[str]:
    """A cell's prompts: most hold one; those of the k4 file hold a Python list of four.

    Raises:
        UserError: if what begins like a list is none; says where.
    """
    if not cell.lstrip().startswith("["):
        return [cell]
    try:
        found = ast.literal_eval(cell.strip())
    except (ValueError, SyntaxError, RecursionError, MemoryError):
        found = None
    if not isinstance(found, list) or not all(isinstance(text, str) for text in found):
        raise UserError(f"{where}: expected a Python list of strings, got {cell[:60]!r}")
    return [whole(text, where) for text in found]
