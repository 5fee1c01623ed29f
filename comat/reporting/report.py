"""`report.html`: everything that an evaluation says, in one file that needs no network."""

from __future__ import annotations

import io
import json
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from comat.evaluation.likelihood import read_images
from comat.params import CaptionerParams, Computing
from comat.reporting.charts import LineChart, line_chart
from comat.reporting.embed import data_uri, uri_of
from comat.reporting.environment import environment
from comat.reporting.html import render, unit_of
from comat.reporting.pairs import Shown
from comat.reporting.pictures import attention_pictures
from comat.reporting.readings import readings
from comat.reporting.results import curves_in, read_curves, read_evaluators, read_prompts_report
from comat.reporting.table import DISTANCES, TITLES, judges, names_of
from comat.storage.tables import write_bytes, write_json

MEANINGS = {"oracle": "Images that show everything their prompt asks for, by the oracle"}
"""What a score is, where its title does not say it."""
CURVES = {
    "Loss (Eq. 6), and concept activation alone (Eq. 2)": ("loss", "i2t"),
    "Attribute concentration (Eq. 4, 5)": ("attribute",),
    "Fidelity preservation (Eq. 3)": ("adversarial", "discriminator"),
    "Norm of the gradient, before clipping": ("grad_norm",),
}
TERM_CURVES = {
    "Norm of each term's own gradient": ("grad_i2t", "grad_i2t_real", "grad_attribute", "grad_adversarial"),
    "Cosine of each term's gradient with the captioner's": (
        "cos_i2t_i2t_real",
        "cos_i2t_attribute",
        "cos_i2t_adversarial",
    ),
    "Cosine of the other terms' gradients with each other": (
        "cos_i2t_real_attribute",
        "cos_i2t_real_adversarial",
        "cos_attribute_adversarial",
    ),
}
OPTIONAL = {"Denoising of real images (Eq. 1)": ("denoising",)}
"""Of losses whose columns are there where they were on."""
OPTIONAL_TERM_CURVES = {
    "Norm of the denoising term's own gradient": ("grad_denoising",),
    "Cosine of each term's gradient with the denoising term's": (
        "cos_i2t_denoising",
        "cos_i2t_real_denoising",
        "cos_attribute_denoising",
        "cos_adversarial_denoising",
    ),
}
SMOOTHED = 10
"""The running mean of a curve is over one of so many parts of the training."""
IMAGE, OVERLAY = 320, 1100
"""Longest sides, pixels."""


def write_likelihood(
    captioner: CaptionerParams, computing: Computing, batch_size: int, shown: Shown, out: Path
) -> None:
    """Write `likelihood.json`: the shown images, word by word as the captioner that trained reads them.

    Of several captioners the first that reads words; where none does, no image is read.
    """
    reader = next((one for one in captioner.captioners if one.reads_words), None)
    shots = [(pair, model, shot.path) for pair in shown.pairs for model, shot in pair.shots.items()]
    images = shots if reader else []
    asked = [(path, pair.text) for pair, _, path in images]
    reads = read_images(reader, computing, batch_size, asked) if reader else []
    rows = [
        {"prompt_id": pair.prompt_id, "seed": pair.seed, "model": model, "words": read.words, "log_p": read.log_p}
        for (pair, model, _), read in zip(images, reads, strict=True)
    ]
    write_json(out / "likelihood.json", {"captioner": reader.captioner_model if reader else None, "images": rows})


@dataclass(frozen=True)
class Inputs:
    """What the report reads beside the results of its own stage: outputs of prompts, train and both samples."""

    prompts: Path  # the stage's folder
    curves: Path  # curves.csv
    base_samples: Path  # the stage's folder
    samples: Path  # the stage's folder


def write_report(parameters: Mapping[str, object], device: str, shown: Shown, inputs: Inputs, out: Path) -> None:
    """Write `report.html` into `out`, where the other results of the stage stand.

    Args:
        parameters: all of them, by sections, for the report lists them.
        device: on which the run was asked to compute, as the parameters name it.

    Raises:
        UserError: if an image is missing or unreadable.
    """
    metrics, likelihood = (_read_json(out / name) for name in ("metrics.json", "likelihood.json"))
    benchmarks = {name: rows for name, rows in metrics.items() if name not in DISTANCES}
    preview = inputs.curves.parent / "preview.html"
    overlays = [
        {
            "text": text,
            "uri": data_uri(out / f"pictures/attention-{number}.png", OVERLAY),
            "dark": uri_of(Image.open(io.BytesIO(picture)).convert("RGB"), OVERLAY),
        }
        for number, (text, picture) in enumerate(attention_pictures(inputs.base_samples, inputs.samples, dark=True))
    ]
    values = {
        "benchmarks": benchmarks,
        "units": {name: unit_of(name) for name in benchmarks},
        "distances": {name: metrics[name] for name in DISTANCES if name in metrics},
        "judges": judges(read_evaluators(out / "evaluators.json")),
        "titles": TITLES | MEANINGS,
        "names": {name: names_of(name) for name in benchmarks},
        "main": names_of(next(iter(benchmarks), "")),
        "shown": shown,
        "uris": {shot.path: data_uri(shot.path, IMAGE) for pair in shown.pairs for shot in pair.shots.values()},
        "readings": readings(shown),
        "preview": os.path.relpath(preview, out) if preview.is_file() else None,
        "captioner": likelihood["captioner"],
        "reads": {
            (row["prompt_id"], row["seed"], row["model"]): [
                (word, log_p, math.exp(log_p)) for word, log_p in zip(row["words"], row["log_p"], strict=True)
            ]
            for row in likelihood["images"]
        },
        "overlays": overlays,
        "charts": training_charts(inputs.curves),
        "params": parameters,
        "parameters": flat(parameters),
        "environment": environment(device),
        "data": read_prompts_report(inputs.prompts),
    }
    write_bytes(out / "report.html", render("comat.reporting", "report.html.j2", values).encode())


def _read_json(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def training_charts(curves: Path) -> list[LineChart]:
    """A chart for each part of the loss that was on; none where nothing was trained."""
    there = set(curves_in(curves))
    wanted = CURVES | {title: names for title, names in OPTIONAL.items() if there.issuperset(names)}
    terms = TERM_CURVES | {title: names for title, names in OPTIONAL_TERM_CURVES.items() if there.issuperset(names)}
    rows = read_curves(curves, ["iteration", *(name for names in wanted.values() for name in names)])
    if not rows:
        return []
    x = [row["iteration"] for row in rows]
    series = {title: {name: [row[name] for row in rows] for name in names} for title, names in wanted.items()}
    window = max(1, len(rows) // SMOOTHED)
    charts = [line_chart(title, x, own, window) for title, own in series.items() if any(map(any, own.values()))]
    for title, names in terms.items():
        measured = read_curves(curves, ["iteration", *names], sparse=True)
        own = {name: [row[name] for row in measured] for name in names}
        if len(measured) > 1 and any(map(any, own.values())):
            charts.append(line_chart(title, [row["iteration"] for row in measured], own))
    return charts


def flat(values: Mapping[str, object], section: str = "") -> dict[str, str]:
    """Parameters by their full key, as YAML writes them."""
    found: dict[str, str] = {}
    for key, value in values.items():
        if isinstance(value, Mapping):
            found |= flat(value, f"{section}{key}.")
        else:
            found[section + key] = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return found
