"""The prompt attack (Table 6) on the base and the tuned model of a run."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path

import torch

from comat.diffusion.lora import in_turn
from comat.errors import UserError
from comat.finished.attack.classes import ROWS, picture, run
from comat.finished.attack.classifier import Classifier
from comat.finished.attack.search import Attack, Search
from comat.finished.attack.summary import attack_table, summary
from comat.finished.attack.targets import Target
from comat.finished.attack.words import candidates
from comat.finished.generate import finished_model
from comat.models.names import ModelName
from comat.models.record import identity
from comat.params import Params
from comat.running.device import choose_device
from comat.running.workdir import fingerprint, work_directory
from comat.storage.images import write_image
from comat.storage.tables import write_json, write_table

Targets = Callable[[Sequence[str]], list[Target]]
"""Names of classes → whom to attack."""


def attack(
    params: Params,
    data: Path,
    judge: tuple[str, str | None],
    targets_of: Targets,
    classes: Sequence[str],
    search: Search,
    samples: int,
    out: Path,
) -> str:
    """Write `rows.parquet`, `attack.json` and `attack.png` into `out`; returns the table of success rates.

    `judge` is the classifier's hub id or folder and its revision; `classes` are all of its own where none is named. A
    run that was ended goes on with the class that it was at.

    Raises:
        UserError: if there is no finished run, no such class, nothing to choose words from, or no class that the
            classifier knows in what both models draw of it.
    """
    classifier = Classifier(*judge, choose_device(params.device), torch.float32)
    named = {classifier.number(name) for name in classes}
    targets = [one for one in targets_of(classifier.names) if not named or classifier.number(one.name) in named]
    without = sorted(named - {classifier.number(target.name) for target in targets})
    if without:
        raise UserError(
            f"no prompt is of {', '.join(classifier.names[number] for number in without)}: give one of each"
        )
    params, backbone = finished_model(params, data, [target.prompt for target in targets])
    words = candidates(backbone.tokenizers).without(classifier.names)
    settings = {"classifier": judge, "samples": samples, "candidates": len(words), **asdict(search)}
    values = {**settings, "params": params.model_dump(), "targets": [asdict(target) for target in targets]}
    values["classifier"] = identity(ModelName("classifier", *judge))  # another one of the same name is another run
    own = Attack(backbone, params, params.grad_steps, classifier, words, search, params.samples.batch_size)
    rows: list[dict] = []
    with work_directory("attack", fingerprint(values, [data / "warmup", data / "train/lora"])) as work:
        for name in in_turn(backbone, data / "train/lora"):
            backbone.denoiser.requires_grad_(False)
            rows += run(name, own, targets, samples, work)
        sheet = picture(rows, targets, work)
        if not sheet:
            saw = sorted({row["seen"] for row in rows})
            raise UserError(
                f"{out}: the classifier knew no class in what both models first drew of it, so there is nothing to "
                f"compare; it saw {', '.join(saw[:5])}. Is it a classifier of such images and names?"
            )
        found = summary(rows, params.evaluate.bootstrap, params.seed)
        write_table(out / "rows.parquet", rows, ROWS)
        write_json(out / "attack.json", {**settings, "models": found})
        write_image(out / "attack.png", sheet)
    return attack_table(found)
