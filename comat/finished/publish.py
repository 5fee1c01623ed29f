"""`comat publish`: what a finished run has made, as a repository of the hub."""

from __future__ import annotations

import contextlib
import re
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path

from huggingface_hub import HfApi, constants, get_token
from huggingface_hub.errors import HfHubHTTPError
from huggingface_hub.utils import validate_repo_id

from comat.errors import UserError, clean, first_line
from comat.evaluation.distances import DISTANCES
from comat.evaluation.scores import drawn
from comat.finished.recorded import check_recorded, check_results
from comat.finished.weights import FinishedRun, finished_run
from comat.models.names import named_models
from comat.params import Params
from comat.reporting.card import Home, card
from comat.reporting.grid import pair_picture
from comat.reporting.pairs import Shown, read_shown, unjudged
from comat.reporting.results import read_evaluators, read_metrics, read_prompts_report
from comat.running.stage import written_whole
from comat.storage.images import write_image
from comat.storage.tables import write_bytes

GAINS, LOSSES = 6, 2
"""Pairs of the card's gallery; what got worse belongs to it."""


def check_name(name: str) -> None:
    """Raises UserError for what is no name of a repository."""
    try:
        validate_repo_id(name)
    except ValueError as error:
        raise UserError(f"{clean(name, 100)}: {first_line(error)}; give USER/NAME") from None
    if "/" not in name:
        raise UserError(f"{clean(name, 100)}: expected USER/NAME, with the user or organisation it is to belong to")


def assemble(params: Params, values: Path, data: Path, name: str, out: Path) -> list[Path]:
    """Put everything into the folder `out`, which has nothing in it: all of it, or nothing; returns the files.

    Args:
        values: the file of the parameters; `dvc.lock` is taken from beside it.
        name: of the repository, by which the card's code loads what it needs.

    Raises:
        UserError: if the run is not finished and evaluated, or was made by other parameters than those of `values`,
            or the lock is of another.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UserError(f"{out}: there is something already; give another --folder, or remove it")
    run = finished_run(params, data)
    results, lock = data / "evaluate", values.parent / "dvc.lock"
    for path in (results / "metrics.json", results / "report.html", lock):
        if not path.is_file():
            raise UserError(f"{path}: missing; run `dvc repro` first")
    check_recorded(params, values, lock)
    check_results(data, lock)
    copies = {"report.html": results / "report.html", "params.yaml": values, "dvc.lock": lock}
    copies |= {path.name: path for path in run.lora_folder.iterdir() if path.is_file()}
    if run.warmed:
        copies |= {f"{run.family.denoiser}/{path.name}": path for path in run.warm.iterdir() if path.is_file()}
    with written_whole(out) as part:
        for place, path in copies.items():
            (part / place).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, part / place)
        _write_card(run, data, name, part)
    return sorted(path for path in out.rglob("*") if path.is_file())


def _write_card(run: FinishedRun, data: Path, name: str, out: Path) -> None:
    """The card and the pictures that it shows."""
    params, metrics = run.params, read_metrics(data / "evaluate/metrics.json")
    gallery = tuple(_gallery(_shown(run, data, metrics), out))
    home = Home(name, name, True, gallery, tuple(_trained_on(run, data)))
    said = read_evaluators(data / "evaluate/evaluators.json")
    text = card(params, params.model_dump(), named_models(params), metrics, said, name.partition("/")[2], home)
    write_bytes(out / "README.md", text.encode())


def _shown(run: FinishedRun, data: Path, metrics: Mapping[str, object]) -> Shown:
    if any(name not in DISTANCES for name in metrics):
        return read_shown(data / "evaluate/scores.parquet", GAINS, data)
    return unjudged(drawn(data / "base_samples") + drawn(data / "samples"), GAINS)


def _gallery(shown: Shown, out: Path) -> Iterator[tuple[str, str, str]]:
    for pair in (*shown.gains[:GAINS], *shown.losses[:LOSSES]):
        place = f"gallery/{pair.prompt_id}-{pair.seed}.png"
        write_image(out / place, pair_picture(pair))
        yield pair.text, place, "better" if pair.gain > 0 else "worse" if pair.gain < 0 else ""


def _trained_on(run: FinishedRun, data: Path) -> Iterator[str]:
    """The prompts of each source, and the images with captions."""
    report = read_prompts_report(data / "prompts")
    for source, own in report["sources"].items():
        yield f"{source}: {own['kept']} of {own['read']} prompts"
    drawn, count = run.params.reference_latents.count, report["total"]["train"]
    fewer = f", of which {drawn} drawn by seed" if 0 < drawn < count else ""
    guard = run.params.train.guard
    apart = f", {guard.prompts} set apart for the guard" if guard.every else ""
    yield f"{count} of them to train on{fewer}{apart}, {report['total']['test']} held out to evaluate on"
    if run.params.mixed_latents or run.params.noises_real:
        what = "images for mixed latents" if run.params.mixed_latents else "images with captions"
        yield f"{what}: {run.params.image_latents.images}"


def logged_in() -> str:
    """The token of whoever is logged in to the hub.

    Raises:
        UserError: if nobody is.
    """
    token = get_token()
    if not token:
        raise UserError("nobody is logged in to the hub: run `hf auth login`, or set HF_TOKEN")
    return token


def upload(name: str, folder: Path, private: bool) -> str:
    """Send a folder to the hub as one commit of the repository, made where there is none; returns its address.

    Raises:
        UserError: if nobody is logged in, or the hub refuses; no message holds the token.
    """
    token = logged_in()
    api = HfApi(endpoint=constants.ENDPOINT, token=token)
    with _without(token, name):
        api.create_repo(name, private=private, exist_ok=True)
        api.upload_folder(repo_id=name, folder_path=folder, commit_message="CoMat: LoRA, card, report, parameters")
    return f"{constants.ENDPOINT}/{name}"


@contextlib.contextmanager
def _without(token: str, name: str) -> Iterator[None]:
    """What the hub's client raises as one line, without the token."""
    try:
        yield
    except (HfHubHTTPError, OSError, ValueError) as error:
        line = re.sub(r"hf_\w+", "hf_…", first_line(error).replace(token, "…"))
        raise UserError(f"{name}: the hub does not take it: {line}") from None
