"""What other stages left, checked before it is shown: metrics, the report on prompts, the curves of training."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from typing_extensions import TypedDict

from comat.errors import UserError, clean
from comat.reporting.table import DISTANCES
from comat.storage.json_files import read_json

REMEDY = "run its stage again (dvc repro)"


class Category(TypedDict):
    """What is shown of a benchmark's category."""

    base: float
    tuned: float
    gain: float
    gain_low: float | None  # null: too few prompts for an interval
    gain_high: float | None
    n: int


class Counted(TypedDict, total=False):
    """Of distances; results of older versions have none."""

    n: int
    n_real: int
    left_out: int


class Distance(Counted):
    base: float
    tuned: float
    ratio: float


class PeerValue(Counted):
    value: float


def read_metrics(path: Path) -> dict[str, dict]:
    """`metrics.json` of the stage evaluate.

    Raises:
        UserError: if it holds something else. Where no benchmark was on it is empty.
    """
    kind: type[dict[str, Any]] = dict[str, dict[str, Category] | Distance]
    return _by_name(path, read_json(path, kind, "a result of `evaluate`", REMEDY))


def read_evaluators(path: Path) -> dict[str, dict[str, str]]:
    """`evaluators.json` of the stage evaluate: benchmark → role → model; nothing where there is none."""
    if not path.exists():
        return {}
    return read_json(path, dict[str, dict[str, str]], "the judges of `evaluate`", REMEDY)


def read_peer_metrics(path: Path) -> dict[str, dict]:
    """`metrics.json` of `comat evaluate`; raises what `read_metrics` does."""
    kind: type[dict[str, Any]] = dict[str, dict[str, PeerValue] | PeerValue]
    return _by_name(path, read_json(path, kind, "a peer's result", REMEDY))


def _by_name(path: Path, found: Mapping[str, Any]) -> dict[str, dict]:
    for name, row in found.items():
        if (name in DISTANCES) == all(isinstance(value, dict) for value in row.values()):
            raise UserError(f"{path}: {clean(name, 60)} has not the values of its kind; {REMEDY}")
    return dict(found)


class _Total(TypedDict):
    train: int
    test: int
    too_long: int


class _Source(TypedDict):
    read: int
    kept: int
    dropped: dict[str, int]


class _Compared(TypedDict):
    prompts: int
    exact: int
    near: int


class PromptsReport(TypedDict):
    """`report.json` of the stage prompts, as far as it is shown."""

    total: _Total
    sources: dict[str, _Source]
    evaluation: dict[str, _Compared]
    languages: dict[str, int]


def read_prompts_report(folder: Path) -> PromptsReport:
    """Raises UserError where the stage prompts wrote another."""
    return read_json(folder / "report.json", PromptsReport, "the report of the stage prompts", REMEDY)


def curves_in(path: Path) -> list[str]:
    """The columns of `curves.csv`."""
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file).fieldnames or [])


def read_curves(path: Path, columns: Sequence[str], sparse: bool = False) -> list[dict[str, float]]:
    """The rows of `curves.csv`; `sparse`, without those that are empty but for the first of `columns`.

    Raises:
        UserError: if a column is missing, or a cell is no number; names the line.
    """
    with path.open(newline="", encoding="utf-8") as file:
        reader = csv.DictReader(file)
        missing = next((name for name in columns if name not in (reader.fieldnames or [])), None)
        if missing:
            raise UserError(f"{path}: has no column {missing!r}; {REMEDY}")
        rows = []
        for row in reader:
            if sparse and not any(row[name] for name in columns[1:]):
                continue
            try:
                rows.append({name: float(row[name]) for name in columns})
            except (TypeError, ValueError):
                raise UserError(f"{path}, line {reader.line_num}: a cell that is no number; {REMEDY}") from None
    return rows
