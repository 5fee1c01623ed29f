"""What training writes down of itself: `curves.csv`, `guard.csv`, and the numbers of `metrics.json`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from comat.captioners.load import captioner_columns
from comat.method.step import DENOISING, TERMS
from comat.params import CaptionerParams, StepParams
from comat.storage.tables import write_csv
from comat.training.gradients import gradient_columns
from comat.training.guard import COLUMNS as LOOKS

Rows = Sequence[Mapping[str, float]]
LEARNING_RATE = "learning_rate"
COLUMNS = [
    "iteration", "loss", "i2t", "attribute", "adversarial", "discriminator", "grad_norm", LEARNING_RATE, "skipped"
]  # fmt: skip
UNMEASURED = {"iteration", LEARNING_RATE, "skipped"}
"""Columns that say what was done, not what came out: no means of them."""
LEFT_OUT = "boxes_left_out"
"""Instances that the segmenter has found but left out: in the metrics where there are any, not in the curves. So are
those that it has not found, as a share of the entities that it was asked for."""
TAIL = 20
"""Iterations at the end that the metrics are means of."""


def curve_columns(captioner: CaptionerParams, step: StepParams) -> list[str]:
    """`COLUMNS`, after i2t one for each of several captioners, and Eq. 1's where it has any weight."""
    parts = [f"i2t_{name}" for name in captioner_columns(captioner)] if step.concept_activation else []
    more = {"i2t": parts, "discriminator": [DENOISING] if step.denoising_weight else []}
    return [name for column in COLUMNS for name in (column, *more.get(column, ()))]


def write_curves(folder: Path, own: Sequence[str], rows: Rows, looks: Rows) -> None:
    """Write `curves.csv`, the columns `own` and those of the terms' gradients, and `guard.csv`, into `folder`."""
    terms = gradient_columns((*TERMS, DENOISING) if DENOISING in own else TERMS)
    for name, header, values in (("curves", [*own, *terms], rows), ("guard", LOOKS, looks)):
        write_csv(folder / f"{name}.csv", header, [[row.get(column, "") for column in header] for row in values])


def summary(own: Sequence[str], rows: Rows) -> dict[str, float]:
    """Means of what the columns `own` measure over the last `TAIL` steps that were not skipped, and counts."""
    tail = [row for row in rows if not row["skipped"]][-TAIL:]
    measured = [name for name in own if name not in UNMEASURED]
    means = {name: sum(row[name] for row in tail) / len(tail) for name in measured} if tail else {}
    return {**means, "iterations": len(rows), "skipped": sum(row["skipped"] for row in rows)}


def postfix(row: Mapping[str, float], captioner: CaptionerParams, concept_activation: bool) -> dict[str, str]:
    """What the progress bar says of an iteration: loss, the captioner's log-likelihood, norm of the gradient.

    A reward that is no likelihood goes by the name of score.
    """
    shown = {"loss": row["loss"]}
    if concept_activation:
        words = all(one.captioner != "clip_similarity" for one in captioner.captioners)
        shown["log p" if words else "score"] = -row["i2t"]
    return {name: f"{value:.3g}" for name, value in {**shown, "gradient": row["grad_norm"]}.items()}
