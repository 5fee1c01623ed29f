"""The prompts of any one file, as the stage `prompts` would read them."""

from __future__ import annotations

from pathlib import Path

from comat.corpora.build import READERS
from comat.corpora.own.sources import FORMATS, own_sources
from comat.corpora.text import normalise


def is_file_name(text: str) -> bool:
    """Whether a file is meant, there or not, rather than a prompt."""
    if len(text) >= 1000 or "\0" in text:
        return False
    path = Path(text)
    return path.is_file() or (path.suffix.lower() in FORMATS and not any(map(str.isspace, path.name)))


def texts_in(path: Path) -> list[str]:
    """The normalised prompts of a file, its format and its column by their usual names.

    Raises:
        UserError: if the suffix is none of a format, or the file cannot be read.
    """
    (source,) = own_sources([path], None, 0.0)
    return [text for prompt in READERS[source.format](source) if (text := normalise(prompt.text))]
