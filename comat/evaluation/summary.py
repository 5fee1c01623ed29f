"""From scores of images to the numbers of `metrics.json`: means by category, gains over the base, intervals."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable, Collection, Sequence

from comat.errors import UserError
from comat.evaluation.statistics import mean_of_means_interval

CATEGORY_MEANS = ("geneval",)
"""Benchmarks whose overall score is published as the mean over their categories; of the others it is that of images."""

TOTAL = "total"


def apart(name: str, reserved: Collection[str], what: str) -> str:
    """A name of others that takes no place of ours: "total" → "total (category)". Different names stay different."""
    stem, mark = name, f" ({what})"
    while stem.endswith(mark):
        stem = stem.removesuffix(mark)
    return name + mark if stem in reserved else name


def by_benchmark(scores: Sequence[dict]) -> dict[str, list[dict]]:
    """The rows of each benchmark, in the order in which the benchmarks come."""
    found: dict[str, list[dict]] = defaultdict(list)
    for row in scores:
        found[row["benchmark"]].append(row)
    return dict(found)


def paired(scores: Sequence[dict]) -> list[tuple[dict, dict]]:
    """(base, tuned) rows of the same prompt and seed, of one benchmark.

    Raises:
        UserError: if base and tuned samples are not pairs.
    """
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


def comparison(scores: Sequence[dict], resamples: int, seed: int) -> dict[str, dict[str, float]]:
    """Category → base, tuned and gain of one benchmark, each with its 95% interval; the last is `total`.

    A category that is called total is "total (category)".
    Details that are a number in every row are averaged as well, over images, to `base_<detail>` and `tuned_<detail>`.

    Raises:
        UserError: if base and tuned samples are not pairs.
    """
    details = _numbers(scores)

    def row(pairs: Sequence[tuple[dict, dict]]) -> dict[str, float]:
        rows = [base for base, _ in pairs]
        base, tuned = ([pair[side]["value"] for pair in pairs] for side in (0, 1))
        values = {"base": base, "tuned": tuned, "gain": [t - b for b, t in zip(base, tuned, strict=True)]}
        found: dict[str, float] = {}
        for name, own in values.items():
            found |= _interval(name, own, rows, resamples, seed)
        found["n"] = len(pairs)
        for side, model in enumerate(("base", "tuned")):
            found |= {
                f"{model}_{apart(name, ('low', 'high'), 'detail')}": _mean([own[_key(pair[side])] for pair in pairs])
                for name, own in details.items()
            }
        return found

    return _by_category(paired(scores), lambda pair: pair[0]["category"], row)


def means(scores: Sequence[dict], resamples: int, seed: int) -> dict[str, dict[str, float]]:
    """Category → mean of one model in one benchmark, `value`, with its 95% interval; the last is `total`."""
    details = _numbers(scores)

    def row(own: Sequence[dict]) -> dict[str, float]:
        found = _interval("value", [entry["value"] for entry in own], own, resamples, seed)
        found["n"] = len(own)
        means = {name: _mean([values[_key(entry)] for entry in own]) for name, values in details.items()}
        return {**found, **{apart(name, found, "detail"): value for name, value in means.items()}}

    return _by_category(scores, lambda entry: entry["category"], row)


def _by_category(entries: Sequence, category: Callable, row: Callable[[Sequence], dict]) -> dict[str, dict]:
    names = sorted({category(entry) for entry in entries})
    found = {apart(name, (TOTAL,), "category"): row([e for e in entries if category(e) == name]) for name in names}
    return {**found, TOTAL: row(entries)}


def _interval(name: str, values: Sequence[float], rows: Sequence[dict], resamples: int, seed: int) -> dict[str, float]:
    """Of values that belong to `rows`: their mean, or the mean of their categories' means."""
    parts: dict[str, tuple[list[float], list[str]]] = defaultdict(lambda: ([], []))
    for value, row in zip(values, rows, strict=True):
        own, groups = parts[row["category"] if row["benchmark"] in CATEGORY_MEANS else ""]
        own.append(value)
        groups.append(row["prompt_id"])
    mean, low, high = mean_of_means_interval(list(parts.values()), resamples, seed)
    return {name: mean, f"{name}_low": low, f"{name}_high": high}


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def _key(row: dict) -> tuple[str, str, int]:
    return row["model"], row["prompt_id"], row["seed"]


def _numbers(scores: Sequence[dict]) -> dict[str, dict[tuple[str, str, int], float]]:
    """The details that are a number in every row: name → row → number."""
    parsed = {_key(row): json.loads(row["details"]) for row in scores}
    first: dict[str, float | str] = next(iter(parsed.values()), {})
    shared = [name for name in first if all(isinstance(own.get(name), int | float) for own in parsed.values())]
    return {name: {key: own[name] for key, own in parsed.items()} for name in shared}
