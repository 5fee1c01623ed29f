"""A user's files as sources: format by name, column by its usual names."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from comat.corpora.build import READERS
from comat.corpora.lists import USUAL
from comat.errors import UserError
from comat.params import PromptSource
from comat.storage.folders import files_below

FORMATS = {
    ".txt": "txt",
    ".csv": "csv",
    ".tsv": "tsv",
    ".json": "json",
    ".jsonl": "jsonl",
    ".parquet": "parquet",
}


def own_sources(files: Iterable[Path], column: str | None, hold_out: float) -> list[PromptSource]:
    """A source for each file or folder, named like it.

    Raises:
        UserError: if a file is missing or of no known format, or a folder holds none or several formats.
    """
    sources: list[PromptSource] = []
    for file in files:
        names = {source.name for source in sources}
        base = file.resolve().stem
        name = next(name for n in range(len(names) + 1) if (name := f"{base}_{n + 1}" if n else base) not in names)
        source = PromptSource.model_validate(
            {"name": name, "format": _format(file), "path": str(file), "hold_out": hold_out}
        )
        sources.append(
            source.model_copy(update={"column": column or _column(source)}) if _has_columns(source) else source
        )
    return sources


def _format(path: Path) -> str:
    if path.is_file():
        suffixes = {path.suffix.lower()}
    elif path.is_dir():
        suffixes = {file.suffix.lower() for file in files_below(path, hidden=False)} & set(FORMATS)
    else:
        raise UserError(f"{path}: no such file or folder")
    if len(suffixes) != 1 or not suffixes <= set(FORMATS):
        found = ", ".join(sorted(suffixes)) or "none of these"
        raise UserError(f"{path}: expected prompts in files of one kind, {', '.join(FORMATS)}: got {found}")
    return FORMATS[suffixes.pop()]


def _has_columns(source: PromptSource) -> bool:
    return source.format != "txt"


def _column(source: PromptSource) -> str:
    """The first of the usual names under which the prompts can be read; `prompt` where none is."""
    for name in USUAL:
        try:
            next(READERS[source.format](source.model_copy(update={"column": name})), None)
        except UserError:
            continue
        return name
    return source.column
