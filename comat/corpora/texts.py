"""The prompts of any one file, as the stage `prompts` would read them."""

from __future__ import annotations

from pathlib import Path

from comat.corpora.build import READERS
from comat.corpora.text import normalise
from comat.errors import UserError
from comat.params import PromptSource

COLUMNS = ("prompt", "caption", "text")


def texts_in(path: Path) -> list[str]:
    """The normalised prompts of a file, by its suffix; tables by the first of `COLUMNS` that they have.

    Raises:
        UserError: if the suffix is none of a format, or the file cannot be read.
    """
    format = path.suffix.lower().removeprefix(".")
    if format not in READERS:
        raise UserError(f"{path}: expected prompts as .txt, .csv, .json, .jsonl or .parquet, got {path.suffix!r}")
    for column in COLUMNS:
        source = PromptSource.model_validate({"name": path.stem, "format": format, "path": str(path), "column": column})
        try:
            return [text for prompt in READERS[format](source) if (text := normalise(prompt.text))]
        except UserError:
            if column == COLUMNS[-1] or format == "txt":
                raise
    raise AssertionError
