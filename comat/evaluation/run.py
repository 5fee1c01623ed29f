"""From samples to `metrics.json`, per-image scores and pictures."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path

import pyarrow as pa

from comat.errors import UserError
from comat.evaluation.frechet import Features, clean_renders, frechet_distance, load_images
from comat.evaluation.oracle import oracle_scores
from comat.evaluation.statistics import paired_gain
from comat.params import Params
from comat.store import IMAGE_INDEX, read_table, write_bytes, write_json, write_table

SCORES = pa.schema(
    {
        "model": pa.string(),
        "prompt_id": pa.string(),
        "category": pa.string(),
        "seed": pa.int32(),
        "path": pa.string(),
        "right": pa.float64(),
        "ignored": pa.float64(),
        "mismatched": pa.float64(),
    }
)


def evaluate(params: Params, samples: Path, out: Path) -> dict:
    """Write `metrics.json`, `scores.parquet` and `categories.csv`; returns the metrics.

    Raises:
        UserError: if base and tuned samples are not pairs.
    """
    index = read_table(samples / "index.parquet", IMAGE_INDEX)
    scores = list(oracle_scores(index, samples))
    pairs = paired(scores)
    categories = sorted({base["category"] for base, _ in pairs})
    oracle = {name: _row([p for p in pairs if p[0]["category"] == name], params) for name in categories}
    oracle["total"] = _row(pairs, params)
    metrics = {"oracle": oracle, "frechet": _frechet(params, index, samples)}
    write_table(out / "scores.parquet", scores, SCORES)
    write_json(out / "metrics.json", metrics)
    lines = ["category,model,right"]
    lines += [f"{name},{model},{row[model]:.4f}" for name, row in oracle.items() for model in ("base", "tuned")]
    write_bytes(out / "categories.csv", ("\n".join(lines) + "\n").encode())
    return metrics


def paired(scores: list[dict]) -> list[tuple[dict, dict]]:
    """(base, tuned) rows of the same prompt and seed."""
    by_key: dict[tuple[str, int], dict[str, dict]] = defaultdict(dict)
    for row in scores:
        by_key[row["prompt_id"], row["seed"]][row["model"]] = row
    broken = [key for key, found in by_key.items() if set(found) != {"base", "tuned"}]
    if broken or not by_key:
        raise UserError(
            f"{len(broken)} of {len(by_key)} samples lack their base or tuned twin (first: {broken[:1]}); "
            "run the samples stage again"
        )
    return [(found["base"], found["tuned"]) for found in by_key.values()]


def _row(pairs: list[tuple[dict, dict]], params: Params) -> dict:
    base, tuned = [b["right"] for b, _ in pairs], [t["right"] for _, t in pairs]
    groups = [b["prompt_id"] for b, _ in pairs]
    gain, low, high = paired_gain(base, tuned, groups, params.evaluate.bootstrap, params.seed)
    row = {
        "base": _mean(base),
        "tuned": _mean(tuned),
        "gain": gain,
        "gain_low": low,
        "gain_high": high,
        "n": len(pairs),
    }
    for name in ("ignored", "mismatched"):
        row[f"base_{name}"] = _mean([b[name] for b, _ in pairs])
        row[f"tuned_{name}"] = _mean([t[name] for _, t in pairs])
    return row


def _mean(values: list[float]) -> float:
    return sum(values) / len(values)


def _frechet(params: Params, index: list[dict], samples: Path) -> dict[str, float]:
    texts = [entry["text"] for entry in index if entry["model"] == "base"]
    features = Features(params.evaluate.feature_model, params.evaluate.feature_revision, params.resolution)
    clean = features(clean_renders(texts, params.resolution, params.seed))
    found = {m: frechet_distance(features(load_images(index, m, samples)), clean) for m in ("base", "tuned")}
    return {**found, "ratio": found["tuned"] / found["base"]}
