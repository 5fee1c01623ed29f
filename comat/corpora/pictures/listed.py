"""Where an image lies, and what is said of it."""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from comat.errors import UserError
from comat.storage.prompt_text import whole

SUFFIXES = frozenset((".jpg", ".jpeg", ".png", ".webp", ".avif", ".bmp", ".gif", ".tif", ".tiff"))
CAPTION_KEYS = ("text", "caption", "captions", "prompt")
"""Names under which tables and objects hold captions; the first that is there counts."""


@dataclass(frozen=True)
class Place:
    """A file, or `size` bytes of it from `at` on."""

    file: Path
    at: int = 0
    size: int | None = None

    def open(self) -> BinaryIO:
        """The bytes to read.

        Raises:
            OSError: if the file cannot be opened.
        """
        if self.size is None:
            return self.file.open("rb")
        with self.file.open("rb") as file:
            file.seek(self.at)
            return io.BytesIO(file.read(self.size))


@dataclass(frozen=True)
class Listed:
    """An image by a name of its own, and its captions as written, none or several.

    `left_out` says why its layout gives it none, whatever stands beside it.
    """

    name: str
    place: Place
    captions: tuple[str, ...]
    left_out: str | None = None


@dataclass(frozen=True)
class Picture:
    """An image and its one caption; `name` is unlike any other's."""

    name: str
    caption: str
    place: Place


def spoken(value: object, where: str) -> tuple[str, ...]:
    """The captions of a value: a string, or a list of strings; none where there is no value.

    Raises:
        UserError: saying `where`, if it is anything else.
    """
    values = value if isinstance(value, list) else [] if value is None else [value]
    texts = tuple(whole(one, where) for one in values if isinstance(one, str))
    if len(texts) < len(values):
        raise UserError(f"{where}: expected a caption, or a list of captions, got {value!r:.60}")
    return texts
