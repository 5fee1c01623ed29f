"""Experiments of DVC beside each other: what each has trained, drawn from the same noise (Fig. 6 and 7)."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from dvc.api import DVCFileSystem
from dvc.exceptions import DvcException
from dvc_data.index import DataIndexDirError
from scmrepo.exceptions import SCMError

from comat.diffusion.lora import in_turn
from comat.errors import UserError, first_line
from comat.finished.generate import drawn, finished_model
from comat.params import Params, load
from comat.reporting.grid import comparison_grid
from comat.storage.images import to_bytes, write_image

FOLDERS = ("models", "warmup", "train/lora")
"""Under data/: what drawing with an experiment's model needs of it."""


def fetch(experiment: str, into: Path, folders: Sequence[str] = FOLDERS) -> tuple[Params, Path]:
    """The parameters of an experiment, or of any revision of git, and a folder with what it has trained.

    `folders` are those under data/ that are wanted.

    Raises:
        UserError: if there is no such experiment, or DVC's cache does not hold its results.
    """
    try:
        files = DVCFileSystem(".", rev=experiment)
        into.mkdir(parents=True)
        (into / "params.yaml").write_bytes(files.read_bytes("params.yaml"))
        for folder in folders:
            files.get(f"data/{folder}", str(into / "data" / folder), recursive=True)
    except (DvcException, SCMError) as error:
        raise UserError(
            f"experiment {experiment!r}: {first_line(error)}; `dvc exp list` names those that there are here"
        ) from None
    except (FileNotFoundError, DataIndexDirError) as error:
        raise UserError(
            f"experiment {experiment!r}: what it has trained is neither in git nor in DVC's cache here "
            f"({first_line(error)}); run it, or `dvc pull` it"
        ) from None
    return load(into / "params.yaml"), into / "data"


def compare_experiments(experiments: Sequence[str], prompts: Sequence[str], seeds: int, out: Path) -> None:
    """Write one picture: of every prompt `seeds` images by the base, and below them by each experiment's model.

    The base is the first experiment's, after its warm-up; each is drawn by its own parameters, and images in a column
    start from the same noise where these have the same seed.
    """
    if "base" in experiments:
        raise UserError("an experiment called 'base' would stand where the base does: name its revision of git instead")
    images: dict[str, list[np.ndarray]] = {}
    with tempfile.TemporaryDirectory() as passing:
        for number, name in enumerate(dict.fromkeys(experiments)):
            for model, own in _drawn(name, Path(passing) / str(number), prompts, seeds):
                if model == "tuned" or not images:
                    images[name if model == "tuned" else "base"] = own
    sizes = {image.shape for own in images.values() for image in own}
    if len(sizes) > 1:
        raise UserError(f"experiments {', '.join(experiments)}: their images are of different sizes, {sorted(sizes)}")
    write_image(out, comparison_grid(prompts, images))


def _drawn(experiment: str, folder: Path, prompts: Sequence[str], seeds: int) -> Iterator[tuple[str, list[np.ndarray]]]:
    params, backbone = finished_model(*fetch(experiment, folder), prompts)
    for model in in_turn(backbone, folder / "data/train/lora"):
        yield model, [to_bytes(image) for image in drawn(params, backbone, prompts, range(seeds))]
