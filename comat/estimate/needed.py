"""What a run needs against what this machine has: every stage's memory, the disk; and models that do not fit."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rich.filesize import decimal

from comat.captioners.load import check_dialogue
from comat.errors import UserError
from comat.estimate.calls import measure
from comat.estimate.card import Card, card_of, host_memory
from comat.estimate.counted import counts
from comat.estimate.findings import Finding, State
from comat.estimate.memory import Need, host, needs
from comat.estimate.plan import disk, scratch
from comat.estimate.published import described
from comat.models.fit import check_steps
from comat.models.record import at_hand, check_configuration, check_together
from comat.params import Params
from comat.running.device import choose_device
from comat.storage.folders import nearest, work_root
from comat.storage.json_files import read_json

TIGHT = 0.9
"""Of the memory: what an estimate above it may well exceed."""


def configurations(params: Params) -> Iterator[Finding]:
    """The base model's class, parts and schedule, and the kinds of the others, as the stage `models` looks at them.

    Nothing is downloaded: of published models the project has the configurations, of others it says nothing.
    """
    with described(params) as (own, _):
        there = at_hand(own)
        vae = next((folder for model, folder in there.items() if model.key == "vae"), None)
        for model, folder in there.items():
            try:
                check_configuration(model, folder, vae, own.discriminator)
                if model.key == "base_model":
                    _check_schedule(folder / "scheduler/scheduler_config.json", own.sampling_steps)
            except (UserError, OSError) as error:
                yield Finding(model.key, "problem", str(error))
                return
        for key, asked in own.dialogues.items():
            if Path(asked.captioner_model).is_dir():
                try:
                    check_dialogue(asked, key)
                except UserError as error:
                    yield Finding(key, "problem", str(error))
        try:
            check_together(own, there)
        except UserError as error:
            yield Finding("models together", "problem", str(error))


def _check_schedule(path: Path, steps: int) -> None:
    schedule = read_json(path, dict[str, Any], "a schedule", "download the model again")
    if not str(schedule.get("_class_name", "")).startswith("FlowMatch"):  # whose timesteps always begin at the noise
        check_steps(schedule, steps)


HOST = {
    "warmup": ("embeddings of its prompts", "lower warmup_images.count"),
    "train": ("the gradients of each term, in each process,", "set train.gradients_every to 0, or lower lora_rank"),
}
"""Stage → what of it stands in the host's memory, and what to do where that is too much."""


def needed(params: Params, data: Path) -> Iterator[Finding]:
    """Memory of every stage against the device's, what `warmup` and `train` take of the host's, and the disk."""
    try:
        with described(params) as (own, _):
            calls, known = measure(own), counts(params, data)
    except (UserError, OSError) as error:
        yield Finding("estimate", "warning", str(error), "what a run needs is not known")
        return
    card = card_of(choose_device(params.device))
    for need in needs(params, calls, known.judged):
        yield fitting(need, card)
    there = host_memory()
    for stage, size in host(params, calls, known).items():
        if size > there:
            what, remedy = HOST[stage]
            found = f"{what} take {decimal(int(size))} of {decimal(there)} of the host's memory"
            yield Finding(f"host memory of {stage}", "problem", found, remedy)
    left, passing = disk(params, calls, known), scratch(params, calls, known)
    yield from rooms(
        2 * sum(size or 0 for size in left.values()),
        max(size or 0 for size in passing.values()),
        None in left.values(),
    )


def fitting(need: Need, card: Card) -> Finding:
    """What one stage needs on the device, against what is there."""
    found = f"needs {decimal(int(need.total))} of {decimal(card.memory)} on {card.name}; "
    parts = sorted(need.parts.items(), key=lambda one: -one[1])
    if need.total <= TIGHT * card.memory:
        part, most = parts[0]
        return Finding(f"memory of {need.stage}", "ok", found + f"{decimal(int(most))} for {part}")
    found += ", ".join(f"{decimal(int(size))} for {part}" for part, size in parts if size)
    state: State = "problem" if need.total > card.memory else "warning"
    return Finding(f"memory of {need.stage}", state, found, need.remedy(card.memory))


def rooms(kept: float, passing: float, unknown: bool) -> Iterator[Finding]:
    """The disks: of what the stages leave and DVC's cache has again, and of the largest working folder."""
    stages, folder = "the stages and DVC's cache", "a working folder"
    work = nearest(work_root())
    if work.stat().st_dev == Path().stat().st_dev:
        remedy = "free some, or set COMAT_WORK_DIR to a folder on another disk"
        yield room("disk needed", kept + passing, Path(), unknown, f"{stages} and {folder}", remedy)
        return
    yield room("disk needed", kept, Path(), unknown, stages, "free some")
    remedy = "free some, or set COMAT_WORK_DIR to a folder on a larger disk"
    yield room("disk of COMAT_WORK_DIR", passing, work, unknown, folder, remedy)


def room(name: str, wanted: float, place: Path, unknown: bool, what: str, remedy: str) -> Finding:
    """Bytes that are wanted for `what` against the free ones where `place` is."""
    free = shutil.disk_usage(place).free
    found = f"{decimal(int(wanted))} for {what}, of {decimal(free)} free"
    found += "; not all of it is known before the stage prompts" * unknown
    if wanted > free:
        return Finding(name, "problem", found, remedy)
    return Finding(name, "ok", found)
