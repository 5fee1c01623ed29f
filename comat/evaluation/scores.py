"""`scores.parquet`: what every benchmark says of every image, in long form."""

from __future__ import annotations

import functools
import hashlib
import json
import math
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path

import pyarrow as pa
from tqdm import tqdm

from comat.errors import UserError
from comat.evaluation.judging import Judging
from comat.evaluation.registry import benchmarks
from comat.evaluation.remembered import Scores, judge_folder
from comat.judges.benchmark import Benchmark, Drawn, Score
from comat.running.distributed import ALONE, Processes
from comat.storage.tables import IMAGE_INDEX, read_table, sha256

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


def score(
    judging: Judging, images: Sequence[Drawn], processes: Processes = ALONE
) -> tuple[list[dict], dict[str, dict[str, str]]]:
    """Rows of `SCORES`, benchmark after benchmark, and each benchmark's evaluators by role; on the main process.

    What the same judge said before of the same image and prompt is remembered, not judged again.

    Raises:
        UserError: if a benchmark covers none of the images, or an image is missing or unreadable.
    """
    rows, evaluators = [], {}
    for benchmark in benchmarks(judging):
        rows += _scored(benchmark, judging, images, processes)
        evaluators[benchmark.name] = dict(benchmark.evaluators)
    return rows, evaluators


def _scored(benchmark: Benchmark, judging: Judging, images: Sequence[Drawn], processes: Processes) -> list[dict]:
    if not processes.main:
        todo: list[list[Drawn]] = processes.from_main(list)
        for _ in _judged(benchmark, todo, processes):
            pass
        return []
    covered = [image for image in images if benchmark.covers(image)]
    if not covered:
        raise UserError(
            f"evaluate.{benchmark.name}: covers none of the {len(images)} images; draw prompts of it "
            "(prompts.sources, samples.benchmarks), or switch it off"
        )
    keys = {image: f"{sum_of_image(Path(image.path))}-{_asked(image)}" for image in covered}
    with Scores(judge_folder(benchmark.name, judging.judge(benchmark.name, benchmark.evaluators))) as known:
        batches = batches_by_model(covered, judging.section.batch_size)
        unknown = [part for part in batches if any(keys[image] not in known for image in part)]
        todo = processes.from_main(lambda: unknown)
        broken = []
        with tqdm(desc=benchmark.name, total=len(covered)) as progress:
            progress.update(len(covered) - sum(map(len, todo)))
            for part, found in zip(todo, _judged(benchmark, todo, processes), strict=True):
                known.add((keys[i], own) for i, own in zip(part, found, strict=True) if math.isfinite(own.value))
                broken += [i.path for i, own in zip(part, found, strict=True) if not math.isfinite(own.value)]
                progress.update(len(part))
        if broken:
            raise UserError(
                f"evaluate.{benchmark.name}: the score of {len(broken)} of {len(covered)} images is no finite number, "
                f"{broken[0]} first; look at that image, and at the judge's weights and precision"
            )
        return [_row(benchmark.name, image, known[keys[image]]) for image in covered]


def _judged(benchmark: Benchmark, todo: Sequence[Sequence[Drawn]], processes: Processes) -> Iterator[list[Score]]:
    """The scores of whole batches, each judged by one of the processes."""
    own = (list(benchmark.scores(part, Path())) for part in processes.share(todo))
    return processes.in_order(own, len(todo))


def batches_by_model(images: Sequence[Drawn], size: int) -> list[list[Drawn]]:
    """Batches of one model each, whatever is there already, and whoever judges them.

    What a score is rounded to may depend on the batch. So the base's batches are the same beside whatever else, and
    equal images give equal scores wherever a run was interrupted.
    """
    by_model: dict[str, list[Drawn]] = defaultdict(list)
    for image in images:
        by_model[image.model].append(image)
    return [own[at : at + size] for own in by_model.values() for at in range(0, len(own), size)]


def sum_of_image(path: Path) -> str:
    """Its sha256; a file that did not change meanwhile is read once.

    Raises:
        UserError: if it is missing.
    """
    try:
        state = path.stat()
    except FileNotFoundError:
        raise UserError(f"{path}: this image is missing; run its stage again (dvc repro)") from None
    return _sum(path, state.st_size, state.st_mtime_ns, state.st_ctime_ns)


@functools.cache
def _sum(path: Path, *state: int) -> str:
    return sha256(path)


def _asked(image: Drawn) -> str:
    """What of a prompt a judge asks by."""
    return hashlib.sha256(json.dumps([image.source, image.category, image.text]).encode()).hexdigest()[:16]


def _row(benchmark: str, image: Drawn, found: Score) -> dict:
    answers = {"questions": [asdict(answer) for answer in found.answers]} if found.answers else {}
    return {
        "benchmark": benchmark,
        "model": image.model,
        "prompt_id": image.prompt_id,
        "text": image.text,
        "category": image.category,
        "seed": image.seed,
        "path": image.path,
        "value": found.value,
        "details": json.dumps({**found.details, **answers}, ensure_ascii=False, sort_keys=True),
    }
