"""The prompts of published benchmarks, from the files that hold their questions or metadata, and captions of images."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

from comat.corpora.pictures.read import choose
from comat.corpora.text import prompt_id
from comat.params import BenchmarkFiles
from comat.samples.formats import dpg, geneval, geneval2, tifa


def benchmark_prompts(files: BenchmarkFiles, seed: int) -> list[dict]:
    """Rows of `PROMPTS`, each prompt of a file once and letter for letter; `source` is the benchmark's name.

    Raises:
        UserError: if a file is missing or not of the published format; names the item.
    """
    rows: dict[str, dict] = {}
    for source, read in READERS.items():
        path = getattr(files, source)
        for text, category in read(Path(path)) if path else ():
            rows |= _row(source, text, category)
    for picture in choose(files.coco, seed).pictures if files.coco else ():
        rows |= _row("coco", picture.caption, "coco")
    return list(rows.values())


def _row(source: str, text: str, category: str) -> dict[str, dict]:
    id = prompt_id(text, source)
    return {id: {"id": id, "text": text, "source": source, "category": category, "split": "test"}}


READERS: dict[str, Callable[[Path], list[tuple[str, str]]]] = {
    "tifa": tifa.prompts,
    "dpg": partial(dpg.prompts, "dpg"),
    "dsg": partial(dpg.prompts, "dsg"),
    "geneval": geneval.prompts,
    "geneval2": geneval2.prompts,
}
