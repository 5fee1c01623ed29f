"""Loggers by name, through accelerate's trackers: they are told what is written down anyway, and change nothing."""

from __future__ import annotations

import contextlib
import math
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from comat.errors import UserError, clean, first_line

PROJECT, FOLDER = "comat", Path("logs")
"""Name of the project that runs belong to, and where loggers that write files put them."""


@contextlib.contextmanager
def started(names: Sequence[str], work: Path, parameters: Mapping[str, object]) -> Iterator[Loggers]:
    """The loggers `names` of the run in the folder `work`, which go on where that run was interrupted.

    Args:
        parameters: all of them, by sections.

    Raises:
        UserError: if one is not installed, or does not start.
    """
    own, goes_on = dict(_flat(parameters)), any(work.iterdir())
    # They are told once; but trackio puts those of a run that goes on in the place of what it was told before.
    told = {name: own if name == "trackio" or not goes_on else {} for name in names}
    loggers = Loggers([_start(name, f"train-{work.name}", told[name]) for name in told])
    try:
        yield loggers
    finally:
        loggers.finish()


def _start(name: str, run: str, parameters: dict[str, bool | int | float | str]) -> Any:
    from accelerate import PartialState
    from accelerate.tracking import LOGGER_TYPE_TO_CLASS, get_available_trackers

    if name not in {*map(str, get_available_trackers())}:
        raise UserError(
            f"train.report_to names {name}, which is not installed: `pip install {name}`, or take it off the list"
        )
    if not PartialState._shared_state:  # one process alone has none; made here, it must not choose a GPU
        PartialState(cpu=True)
    try:
        tracker = LOGGER_TYPE_TO_CLASS[name](**_options(name, run))
        tracker.start()
        if parameters:
            tracker.store_init_configuration(parameters)
    except Exception as error:  # of another library: no login, or a folder that cannot be written
        raise UserError(
            f"train.report_to: {name} does not start ({type(error).__name__}: {clean(first_line(error))}); set it up, "
            "or take it off the list"
        ) from error
    return tracker


def _options(name: str, run: str) -> dict[str, object]:
    """How accelerate's tracker of that name is to be made; its `run_name` is the project's for two of them."""
    folder = FOLDER / name
    if name != "trackio":
        folder.mkdir(parents=True, exist_ok=True)
    known: dict[str, dict[str, object]] = {
        # Its files are named by the second: a run that goes on within the same one must not write over the first.
        "tensorboard": {"run_name": run, "logging_dir": folder, "filename_suffix": f".{time.monotonic_ns()}"},
        "wandb": {"run_name": PROJECT, "name": run, "id": run, "resume": "allow", "dir": folder},
        "trackio": {"run_name": PROJECT, "name": run, "resume": "allow"},
        "dvclive": {"dir": str(folder / run), "resume": True, "save_dvc_exp": False, "dvcyaml": None},
    }
    return known[name]


def _flat(values: Mapping[str, object], section: str = "") -> Iterator[tuple[str, bool | int | float | str]]:
    """Parameters by their full key; lists as text, and those that are null not at all."""
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{section}{key}.")
        elif value is not None:
            yield section + key, value if isinstance(value, bool | int | float | str) else str(value)


class Loggers:
    """Trackers of accelerate that have been started. One that fails is left out from then on; training goes on."""

    def __init__(self, trackers: Sequence[Any]) -> None:
        self.trackers = [*trackers]

    def values(self, group: str, row: Mapping[str, float], step: int) -> None:
        """Tell the finite numbers of `row` as `<group>/<name>`."""
        told = {f"{group}/{name}": value for name, value in row.items() if math.isfinite(value)}
        self._each(lambda tracker: tracker.log(told, step=step))

    def pictures(self, images: Mapping[str, np.ndarray], step: int) -> None:
        """Tell named images (H, W, 3), uint8."""
        self._each(lambda tracker: _tell_pictures(tracker, images, step))

    def finish(self) -> None:
        self._each(lambda tracker: tracker.finish())

    def _each(self, tell: Callable[[Any], object]) -> None:
        for tracker in [*self.trackers]:
            try:
                tell(tracker)
            except Exception as error:  # whatever a logger has, hours of training must not end by it
                self.trackers.remove(tracker)
                why = f"{type(error).__name__}: {clean(first_line(error))}"
                print(f"\n{tracker.name} stopped ({why}); training goes on without it", file=sys.stderr)


NOBODY = Loggers([])


def _tell_pictures(tracker: Any, images: Mapping[str, np.ndarray], step: int) -> None:
    """accelerate has a common form for numbers only."""
    if tracker.name == "tensorboard":
        tracker.log_images({name: image[None] for name, image in images.items()}, step=step, dataformats="NHWC")
    elif tracker.name == "trackio":
        import trackio

        tracker.log({name: trackio.Image(image) for name, image in images.items()}, step=step)
    elif tracker.name == "dvclive":
        tracker.tracker.step = step
        for name, image in images.items():
            tracker.tracker.log_image(f"{name}.png", Image.fromarray(image))
    else:
        tracker.log_images({name: [image] for name, image in images.items()}, step=step)
