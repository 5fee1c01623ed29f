"""From samples to `metrics.json` and per-image scores."""

from __future__ import annotations

from pathlib import Path

from comat.evaluation.distances import distances
from comat.evaluation.scores import SCORES, drawn, score
from comat.evaluation.summary import by_benchmark, comparison
from comat.params import Params
from comat.store import write_bytes, write_json, write_table


def evaluate(params: Params, base: Path, tuned: Path, out: Path) -> dict:
    """Write `metrics.json`, `scores.parquet`, `evaluators.json` and `categories.csv`; returns the metrics.

    Raises:
        UserError: if base and tuned samples are not pairs, or a benchmark covers none of them.
    """
    images = drawn(base) + drawn(tuned)
    scores, evaluators = score(params, images)
    metrics = {name: comparison(params, rows) for name, rows in by_benchmark(scores).items()}
    for name, (found, models) in distances(params, images).items():
        metrics[name] = {**found, "ratio": found["tuned"] / found["base"]}
        evaluators[name] = models
    write_table(out / "scores.parquet", scores, SCORES)
    write_json(out / "evaluators.json", evaluators)
    write_json(out / "metrics.json", metrics)
    main = next(iter(metrics.values()))
    # One label a bar: bars of equal labels would be stacked.
    lines = [f"{name} ({model}),{row[model]:.4f}" for name, row in main.items() for model in ("base", "tuned")]
    write_bytes(out / "categories.csv", "\n".join(["category,score", *lines, ""]).encode())
    return metrics
