"""The prompts of any one file, as the stage `prompts` would read them."""

from __future__ import annotations

from pathlib import Path

from comat.corpora.build import READERS
from comat.corpora.lists import USUAL
from comat.corpora.text import normalise
from comat.errors import UserError
from comat.params import PromptSource


def is_file_name(text: str) -> bool:
    """Whether a file is meant, there or not, rather than a prompt."""
    if len(text) >= 1000 or "\0" in text:
        return False
    path = Path(text)
    return path.is_file() or (path.suffix.lower().removeprefix(".") in READERS and not any(map(str.isspace, path.name)))


def texts_in(path: Path) -> list[str]:
    """The normalised prompts of a file, by its suffix; tables by the first of `USUAL` that they have.

    Raises:
        UserError: if the suffix is none of a format, or the file cannot be read.
    """
    format = path.suffix.lower().removeprefix(".")
    if format not in READERS:
        raise UserError(f"{path}: expected prompts as .txt, .csv, .json, .jsonl or .parquet, got {path.suffix!r}")
    for column in USUAL:
        source = PromptSource.model_validate({"name": path.stem, "format": format, "path": str(path), "column": column})
        try:
            return [text for prompt in READERS[format](source) if (text := normalise(prompt.text))]
        except UserError:
            if column == USUAL[-1] or format == "txt":
                raise
    raise AssertionError
