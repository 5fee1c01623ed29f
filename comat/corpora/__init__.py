"""Prompt corpora: readers of the formats as they are published, and the corpus that is built from them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

from comat.corpora.readers import Prompt, read_abc6k, read_hrs, read_lines, read_t2i_compbench

READERS: dict[str, Callable[[Path], Iterator[Prompt]]] = {
    "t2i_compbench": read_t2i_compbench,
    "hrs": read_hrs,
    "abc6k": read_abc6k,
    "lines": read_lines,
}
"""Format → reader."""
