"""From scores of images to the numbers of `metrics.json`: means by category, gains over the base, intervals."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable, Collection, Sequence
from typing import TypeVar

from comat.errors import UserError
from comat.evaluation.statistics import Interval, Part, difference_of, interval_of, prompts_of

T = TypeVar("T")

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


Row = dict[str, float | None]
"""The numbers of a category; of an interval null where there are too few prompts for one."""


def comparison(scores: Sequence[dict], resamples: int, seed: int) -> dict[str, Row]:
    """Category → base, tuned and gain of one benchmark, each with its 95% interval; the last is `total`.

    A category that is called total is "total (category)".
    Details that are a number in every row are averaged as well, over images, to `base_<detail>` and `tuned_<detail>`.
    Where questions were asked their categories follow, each a mean over all questions, of which `n` counts pairs.

    Raises:
        UserError: if base and tuned samples are not pairs.
    """
    details = _numbers(scores)

    def numbers(pairs: Sequence[tuple[dict, dict]]) -> Row:
        base, tuned = (_parts([pair[side] for pair in pairs]) for side in (0, 1))
        found = _named("base", interval_of(base, resamples, seed))
        found |= _named("tuned", interval_of(tuned, resamples, seed))
        found |= _named("gain", difference_of(tuned, base, resamples, seed))
        return {**found, "n": len(pairs), "prompts": prompts_of(base)}

    def row(pairs: Sequence[tuple[dict, dict]]) -> Row:
        found = numbers(pairs)
        for side, model in enumerate(("base", "tuned")):
            found |= {
                f"{model}_{apart(name, ('low', 'high'), 'detail')}": _mean([own[_key(pair[side])] for pair in pairs])
                for name, own in details.items()
            }
        return found

    pairs = paired(scores)
    asked = [one for base, tuned in pairs for one in zip(_questions(base), _questions(tuned), strict=True)]
    return _by_category(pairs, asked, lambda pair: pair[0]["category"], row, numbers)


def means(scores: Sequence[dict], resamples: int, seed: int) -> dict[str, Row]:
    """Category → mean of one model in one benchmark, `value`, with its 95% interval; the last is `total`."""
    details = _numbers(scores)

    def numbers(own: Sequence[dict]) -> Row:
        parts = _parts(own)
        return {**_named("value", interval_of(parts, resamples, seed)), "n": len(own), "prompts": prompts_of(parts)}

    def row(own: Sequence[dict]) -> Row:
        found = numbers(own)
        means = {name: _mean([values[_key(entry)] for entry in own]) for name, values in details.items()}
        return {**found, **{apart(name, found, "detail"): value for name, value in means.items()}}

    asked = [one for entry in scores for one in _questions(entry)]
    return _by_category(scores, asked, lambda entry: entry["category"], row, numbers)


def _by_category(
    entries: Sequence[T],
    asked: Sequence[T],
    category: Callable[[T], str],
    row: Callable[[Sequence[T]], Row],
    numbers: Callable[[Sequence[T]], Row],
) -> dict[str, Row]:
    """A row for each category of the images, then of their questions, then for all images."""
    names = sorted({category(entry) for entry in entries})
    found = {apart(name, (TOTAL,), "category"): row([e for e in entries if category(e) == name]) for name in names}
    for kind in sorted({category(entry) for entry in asked}):
        own = [entry for entry in asked if category(entry) == kind]
        found[apart(kind, (TOTAL, *found), "questions")] = numbers(own)
    return {**found, TOTAL: row(entries)}


def _questions(row: dict) -> list[dict]:
    """A row for each question that was asked about an image, its category and whether the answer is right."""
    answers: list[dict] = json.loads(row["details"]).get("questions", [])
    return [{**row, "category": answer["category"], "value": float(answer["right"])} for answer in answers]


def _parts(rows: Sequence[dict]) -> list[Part]:
    """Values and prompts of rows: together, or by category where the mean is that of the categories' means."""
    parts: dict[str, tuple[list[float], list[str]]] = defaultdict(lambda: ([], []))
    for row in rows:
        own, groups = parts[row["category"] if row["benchmark"] in CATEGORY_MEANS else ""]
        own.append(row["value"])
        groups.append(row["prompt_id"])
    return list(parts.values())


def _named(name: str, found: Interval) -> Row:
    return dict(zip((name, f"{name}_low", f"{name}_high"), found, strict=True))


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
