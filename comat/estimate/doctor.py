"""Is this machine ready for the current parameters? One line for each thing that can be wrong, with what to do."""

from __future__ import annotations

import importlib.util
import os
import platform
import shutil
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Literal

import psutil
from huggingface_hub import constants
from packaging.requirements import Requirement
from rich.console import Console
from rich.filesize import decimal
from rich.table import Table
from rich.text import Text

from comat.errors import UserError
from comat.models.download import find_model
from comat.models.files import files_of
from comat.models.names import ModelName, named_models
from comat.params import Params

SCARCE = 2 * 10**9
"""Free bytes of a disk below which is warned."""
PATIENCE = 4.0
"""Seconds to wait for the hub, looking up its address included."""
State = Literal["ok", "warning", "problem"]
COLOURS: dict[State, str] = {"ok": "green", "warning": "yellow", "problem": "bold red"}


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at; a problem makes `dvc repro` fail, a warning may."""

    name: str
    state: State
    found: str
    remedy: str = ""


def examine(params: Params) -> Iterator[Finding]:
    """Everything that `comat doctor` looks at, in its order."""
    yield from versions("comat")
    yield from device(params.device, params.precision)
    memory = psutil.virtual_memory()
    yield Finding("memory", "ok", f"{decimal(memory.available)} free of {decimal(memory.total)}")
    yield disk("disk of the project", Path())
    yield disk("disk of the hub's cache", Path(constants.HF_HUB_CACHE))
    reachable = hub()
    yield reachable
    for model in named_models(params):
        yield weights(model, reachable.state == "ok")
    spacy = params.entities.spacy_model
    there = importlib.util.find_spec(spacy) is not None
    yield Finding("entities.spacy_model", *(("ok", spacy) if there else ("problem", f"{spacy} is not installed")))


def versions(project: str) -> Iterator[Finding]:
    """Python and every package of an installed project against the ranges that it requires; torchvision's torch too."""
    try:
        wanted = [Requirement(line) for line in metadata.requires(project) or []]
        python = Requirement(f"python{metadata.metadata(project)['Requires-Python'] or ''}")
    except metadata.PackageNotFoundError:
        yield Finding("packages", "problem", f"{project} is not installed", "run `make demo`, or `pip install -e .`")
        return
    here = platform.python_version()
    if here in python.specifier:
        yield Finding("Python", "ok", here)
    else:
        yield Finding("Python", "problem", here, f"install Python {python.specifier}")
    wanted = [need for need in wanted if need.marker is None or need.marker.evaluate({"extra": ""})]
    clashes = [clash for need in wanted if (clash := _clash(need))]
    for need in map(Requirement, _requires("torchvision")):
        if need.name == "torch" and (clash := _clash(need)):
            clashes.append(f"{clash} (by torchvision {metadata.version('torchvision')})")
    if clashes:
        remedy = "run `pip install -r requirements.txt`"
        yield from (Finding("packages", "problem", clash, remedy) for clash in clashes)
    else:
        yield Finding("packages", "ok", f"all {len(wanted)} in the required ranges")


def _requires(package: str) -> list[str]:
    try:
        return metadata.requires(package) or []
    except metadata.PackageNotFoundError:
        return []


def _clash(need: Requirement) -> str | None:
    try:
        version = metadata.version(need.name)
    except metadata.PackageNotFoundError:
        return f"{need.name} is missing, required is {need.specifier}"
    fits = need.specifier.contains(version, prereleases=True)
    return None if fits else f"{need.name} {version}, required is {need.specifier}"


def device(name: str, precision: str) -> Iterator[Finding]:
    """PyTorch, and whether the device and precision of the parameters can be had."""
    try:
        import torch
        import torchvision  # noqa: F401 (one that does not match its torch fails here)
    except (ImportError, OSError, RuntimeError) as error:
        yield Finding("torch", "problem", str(error).splitlines()[0][:200], "run `pip install -r requirements.txt`")
        return
    yield Finding("torch", "ok", f"{torch.__version__}, {torch.get_num_threads()} threads")
    from comat.running.device import choose_device

    try:
        chosen = choose_device(name)
    except UserError:
        yield Finding("device", "problem", f"{name}: this torch sees no such device", "set device to auto or cpu")
        return
    if chosen.type != "cuda":
        slow = precision != "fp32" and chosen.type == "cpu"
        found = f"{chosen}, {platform.machine()}, {os.cpu_count()} cores"
        remedy = f"precision {precision} is slow on a CPU; fp32 is not" if slow else ""
        yield Finding("device", "warning" if slow else "ok", found, remedy)
    else:
        free, total = torch.cuda.mem_get_info(chosen)
        bad = precision == "bf16" and not torch.cuda.is_bf16_supported(including_emulation=False)
        found = f"{torch.cuda.get_device_name(chosen)}, {decimal(free)} free of {decimal(total)}"
        yield Finding("device", "warning" if bad else "ok", found, "it has no bf16; set precision to fp16" * bad)


def disk(name: str, folder: Path) -> Finding:
    """Free space where `folder` is or will be."""
    there = next(path for path in (folder.resolve(), *folder.resolve().parents) if path.exists())
    free = shutil.disk_usage(there).free
    remedy = "`comat estimate` says how much the stages need" if free < SCARCE else ""
    return Finding(name, "warning" if remedy else "ok", f"{decimal(free)} free at {there}", remedy)


def hub(patience: float = PATIENCE) -> Finding:
    """Whether the model hub answers within `patience` seconds; a name server that hangs is waited for no longer."""
    if constants.HF_HUB_OFFLINE:
        return Finding("model hub", "warning", "switched off by HF_HUB_OFFLINE", "only models at hand can be used")
    answer = ["no answer"]

    def ask() -> None:
        try:
            with urllib.request.urlopen(constants.ENDPOINT, timeout=patience):
                answer[0] = ""
        except urllib.error.HTTPError:
            answer[0] = ""  # it refuses this page, so it is there
        except (OSError, ValueError) as error:
            answer[0] = str(getattr(error, "reason", error))

    asking = threading.Thread(target=ask, daemon=True)
    asking.start()
    asking.join(patience)
    if not answer[0]:
        return Finding("model hub", "ok", constants.ENDPOINT)
    return Finding("model hub", "warning", f"{constants.ENDPOINT}: {answer[0]}", "only models at hand can be used")


def weights(model: ModelName, reachable: bool) -> Finding:
    """Whether a model's files are at hand, and how large they are; missing is a problem where no hub can give them."""
    try:
        folder, commit = find_model(model, offline=True)
    except UserError as error:
        wanted = reachable and not Path(model.name).is_dir()
        why = "not downloaded yet; `dvc repro` does it" if wanted else str(error).partition(": ")[2]
        return Finding(model.key, "warning" if wanted else "problem", model.name, why)
    size = sum((folder / name).stat().st_size for name in files_of(folder, model))
    return Finding(model.key, "ok", f"{model.name}, {decimal(size)}" + (f", commit {commit[:8]}" if commit else ""))


def report(findings: list[Finding], console: Console) -> None:
    """Print the findings as a table."""
    table = Table(box=None, pad_edge=False)
    for title in ("", "state", "found", "what to do"):
        table.add_column(title, overflow="fold")
    for one in findings:
        table.add_row(one.name, Text(one.state, COLOURS[one.state]), Text(one.found), Text(one.remedy))
    console.print(table, highlight=False)
