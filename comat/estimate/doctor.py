"""Will the current parameters run to their end on this machine? What can be wrong, one by one, with what to do."""

from __future__ import annotations

import os
import platform
import shutil
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import psutil
from huggingface_hub import constants
from packaging.requirements import Requirement
from rich.filesize import decimal

from comat.errors import UserError
from comat.estimate.card import host_memory
from comat.estimate.findings import Finding
from comat.estimate.inputs import inputs, spacy_model
from comat.estimate.needed import configurations, needed
from comat.models.download import find_model
from comat.models.files import files_of
from comat.models.names import ModelName, named_models
from comat.params import Params
from comat.running.launch import asked_processes
from comat.storage.folders import nearest
from comat.storage.yaml_files import read_bounded

SCARCE = 2 * 10**9
"""Free bytes of a disk below which is warned."""
TAKEN = 0.1
"""Of a GPU's memory: more than what every process takes there for itself."""
ABSENT: tuple[()] = ()
"""What stands at a key that is not there."""
PATIENCE = 4.0
"""Seconds to wait for the hub, looking up its address included."""


def examine(params: Params, data: Path, file: Path) -> Iterator[Finding]:
    """Everything that `comat doctor` looks at, in its order. `file` is that which `params` were read from."""
    yield from versions("comat")
    yield from named(file, Path("dvc.yaml"))
    there = list(device(params.device, params.precision))
    yield from there
    yield from launched()
    yield from loggers(params.train.report_to)
    memory = psutil.virtual_memory()
    limit = host_memory()
    own = f"; {decimal(limit)} of it for this container or job" if limit < memory.total else ""
    yield Finding("memory", "ok", f"{decimal(memory.available)} free of {decimal(memory.total)}{own}")
    yield disk("disk of the project", Path())
    yield disk("disk of the hub's cache", Path(constants.HF_HUB_CACHE))
    reachable = hub()
    yield reachable
    for model in named_models(params):
        yield weights(model, reachable.state == "ok")
    fits = list(configurations(params))
    yield from fits
    parser, nouns = spacy_model(params.entities.spacy_model)
    yield parser
    yield from inputs(params, reachable.state == "ok", nouns)
    if all(one.state != "problem" for one in (*there, *fits)):
        yield from needed(params, data)


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


def named(file: Path, pipeline: Path) -> Iterator[Finding]:
    """Keys that a stage of `pipeline` depends on and `file` lacks, as one of an earlier version may.

    What has a default here has none for DVC, which says so when it comes to that stage, hours later.
    """
    if not pipeline.is_file():
        return
    values = read_bounded(str(file), file.read_text(encoding="utf-8"))
    stages = _at(read_bounded(str(pipeline), pipeline.read_text(encoding="utf-8")), "stages")
    lacking = {
        key: name
        for name in (stages if isinstance(stages, Mapping) else ())
        for key in _at(stages, name, "params") or []
        if isinstance(key, str) and _at(values, *key.split(".")) is ABSENT
    }
    for key, name in lacking.items():
        remedy = f"copy it from a preset: stage {name} depends on it"
        yield Finding("parameters", "problem", f"{file}: {key} is missing", remedy)
    if not lacking:
        yield Finding("parameters", "ok", f"{file}: all that stages depend on")


def _at(values: Any, *path: str) -> Any:
    for key in path:
        values = values.get(key, ABSENT) if isinstance(values, Mapping) else ABSENT
    return values


def loggers(names: Sequence[str]) -> Iterator[Finding]:
    """Whether those that training is to report to are installed: it would end where it starts them."""
    from accelerate.tracking import get_available_trackers

    there = {*map(str, get_available_trackers())}
    for name in names:
        if name in there:
            yield Finding("logger", "ok", name)
        else:
            remedy = f"run `pip install {name}`, or take it off train.report_to"
            yield Finding("logger", "problem", f"{name} is not installed", remedy)


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
        taken = total - free > TAKEN * total
        remedy = "others hold the rest: what follows is compared with the whole" * taken
        remedy = "it has no bf16; set precision to fp16" if bad else remedy
        yield Finding("device", "warning" if bad or taken else "ok", found, remedy)


def launched() -> Iterator[Finding]:
    """How many processes a stage runs in, by accelerate's configuration."""
    try:
        asked = asked_processes()
    except UserError as error:
        yield Finding("accelerate", "problem", str(error), "docs/scale.md")
        return
    yield Finding("accelerate", "ok", asked)


def disk(name: str, folder: Path) -> Finding:
    """Free space where `folder` is or will be."""
    there = nearest(folder)
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
