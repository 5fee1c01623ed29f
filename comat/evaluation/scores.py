"""`scores.parquet`: what every benchmark says of every image, in long form."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
from tqdm import tqdm

from comat.errors import UserError
from comat.evaluation.judging import Judging
from comat.evaluation.registry import benchmarks
from comat.judges.benchmark import Benchmark, Drawn, Score
from comat.storage.tables import IMAGE_INDEX, read_table

SCORES = pa.schema(
    {
        "benchmark": pa.string(),
        "model": pa.string(),
        "prompt_id": pa.string(),
        "text": pa.string(),
        "category": pa.string(),
        "seed": pa.int32(),
        "path": pa.string(),  # from the project's root
        "value": pa.float64(),
        "details": pa.string(),  # JSON: what the value is made of
    }
)


def drawn(folder: Path) -> list[Drawn]:
    """The images of a folder of samples; their paths lead from where `folder` does."""
    rows = read_table(folder / "index.parquet", IMAGE_INDEX)
    return [Drawn(**{**row, "path": (folder / row["path"]).as_posix()}) for row in rows]


def score(judging: Judging, images: Sequence[Drawn]) -> tuple[list[dict], dict[str, dict[str, str]]]:
    """Rows of `SCORES`, benchmark after benchmark, and each benchmark's evaluators by role.

    Raises:
        UserError: if a benchmark covers none of the images, or an image is missing or unreadable.
    """
    rows, evaluators = [], {}
    for benchmark in benchmarks(judging):
        rows += _scored(benchmark, images)
        evaluators[benchmark.name] = dict(benchmark.evaluators)
    return rows, evaluators


def _scored(benchmark: Benchmark, images: Sequence[Drawn]) -> list[dict]:
    covered = [image for image in images if benchmark.covers(image)]
    if not covered:
        raise UserError(
            f"evaluate.{benchmark.name}: covers none of the {len(images)} images; draw prompts of it "
            "(prompts.sources, samples.benchmarks), or switch it off"
        )
    found = tqdm(benchmark.scores(covered, Path()), desc=benchmark.name, total=len(covered))
    rows = [_row(benchmark.name, image, value) for image, value in zip(covered, found, strict=True)]
    broken = [row["path"] for row in rows if not math.isfinite(row["value"])]
    if broken:
        raise UserError(
            f"evaluate.{benchmark.name}: the score of {len(broken)} of {len(rows)} images is no finite number, "
            f"{broken[0]} first; look at that image, and at the judge's weights and precision"
        )
    return rows


def _row(benchmark: str, image: Drawn, found: Score) -> dict:
    return {
        "benchmark": benchmark,
        "model": image.model,
        "prompt_id": image.prompt_id,
        "text": image.text,
        "category": image.category,
        "seed": image.seed,
        "path": image.path,
        "value": found.value,
        "details": json.dumps(found.details, ensure_ascii=False, sort_keys=True),
    }
