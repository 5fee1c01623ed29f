"""From samples to `metrics.json` and per-image scores."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from comat.evaluation.distances import DISTANCES, distances
from comat.evaluation.judging import Judging
from comat.evaluation.registry import left_out
from comat.evaluation.scores import SCORES, drawn, score
from comat.evaluation.summary import TOTAL, by_benchmark, comparison
from comat.judges.benchmark import Drawn
from comat.running.distributed import ALONE, Processes
from comat.storage.tables import write_csv, write_json, write_table


def evaluate(judging: Judging, base: Path, tuned: Path, out: Path, processes: Processes = ALONE) -> dict:
    """Write `metrics.json`, `scores.parquet`, `evaluators.json`, `judging.json`, `categories.csv`; returns the metrics.

    All processes judge, and the main one writes; the others return nothing.

    Raises:
        UserError: if base and tuned samples are not pairs, or a benchmark covers none of them.
    """
    images = drawn(base) + drawn(tuned)
    metrics = judge(judging, images, comparison, _with_ratio, out, processes)
    if not processes.main:
        return {}
    main: dict = next((rows for name, rows in metrics.items() if name not in DISTANCES), {})
    # One label a bar: bars of equal labels would be stacked.
    lines = [(f"{name} ({model})", f"{row[model]:.4f}") for name, row in main.items() for model in ("base", "tuned")]
    write_csv(out / "categories.csv", ("category", "score"), lines)
    return metrics


def _with_ratio(found: dict[str, float]) -> dict[str, float]:
    return {**found, "ratio": found["tuned"] / found["base"]}


def judge(
    judging: Judging,
    images: Sequence[Drawn],
    summary: Callable[[Sequence[dict], int, int], dict],
    distance: Callable[[dict[str, float]], dict[str, float]],
    out: Path,
    processes: Processes = ALONE,
) -> dict:
    """Write `scores.parquet`, `evaluators.json`, `judging.json` and `metrics.json` of images; returns the metrics.

    `metrics.json` comes last, and goes first: where it stands, all of it is of one judgement.

    Args:
        summary: from the rows of one benchmark, the number of resamples and the seed to its metrics.
        distance: from model → distance to the metrics of one distance.

    Raises:
        UserError: if a benchmark or a distance covers none of the images.
    """
    scores, evaluators = score(judging, images, processes)
    found_distances = distances(judging, images, processes)
    if not processes.main:
        return {}
    resamples, seed = judging.section.bootstrap, judging.seed
    metrics = {name: summary(rows, resamples, seed) for name, rows in by_benchmark(scores).items()}
    for name, count in left_out(judging).items():
        metrics[name][TOTAL]["left_out"] = count
    for name, found in found_distances.items():
        metrics[name] = distance(found.distances) | found.counts
        evaluators[name] = found.evaluators
    asked = {name: judging.asked(name) for name in metrics}
    (out / "metrics.json").unlink(missing_ok=True)
    write_table(out / "scores.parquet", scores, SCORES)
    write_json(out / "evaluators.json", evaluators)
    write_json(out / "judging.json", asked)
    write_json(out / "metrics.json", metrics)
    return metrics
