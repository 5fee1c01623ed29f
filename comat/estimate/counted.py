"""How many prompts, images and judgements a run has, as far as their files are at hand."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from spacy.language import Language

from comat.corpora.pictures.read import choose
from comat.entities.parse import load_parser
from comat.errors import UserError
from comat.estimate.judgements import Judgements, judgements
from comat.estimate.plan import Counts
from comat.evaluation.t2i_compbench import CATEGORIES
from comat.params import Params
from comat.samples.draw import drawn_of
from comat.samples.prompt_files import benchmark_prompts
from comat.storage.tables import PROMPTS, read_table


def counts(params: Params, data: Path) -> Counts:
    """How many prompts and images there are, as far as their files are at hand."""
    table, section = data / "prompts/prompts.parquet", params.image_latents
    listed = read_table(table, PROMPTS) if table.is_file() else None
    there = section.images is not None and Path(section.images).exists()
    images = len(choose(section, params.seed).pictures) if there else None
    try:
        asked = benchmark_prompts(params.samples.benchmarks, params.seed)
    except (UserError, OSError):  # `comat doctor` says what is wrong with them
        asked = []
    files = Counter(row["source"] for row in asked)
    if listed is None:
        return Counts(None, None, images, files)
    test = [row for row in listed if row["split"] == "test"]
    drawn = drawn_of(test, params.samples.prompts, params.seed) + asked
    return Counts(len(listed) - len(test), len(test), images, files, _judged(params, drawn))


def _judged(params: Params, drawn: Sequence[dict]) -> Judgements | None:
    """None where a benchmark's file cannot be read."""
    coco = params.samples.benchmarks.coco
    try:
        photographs = len(choose(coco, params.seed).pictures) if coco else None
        return judgements(params.evaluate, params.samples, drawn, photographs, _parser(params, drawn))
    except (UserError, OSError):
        return None


def _parser(params: Params, drawn: Sequence[dict]) -> Language | None:
    """What finds the nouns of T2I-CompBench's prompts, if there are any and it is installed."""
    if not params.evaluate.t2i_compbench or all(row["category"] not in CATEGORIES for row in drawn):
        return None
    try:
        return load_parser(params.entities.spacy_model)
    except UserError:
        return None
