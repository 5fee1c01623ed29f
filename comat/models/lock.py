"""`models.lock.json`: id, commit and the sha256 of every used file of every model; and the parameters bound to it.

Stages depend on the `sha256` of the models they load (dvc.yaml), so a model that changes re-runs its users alone.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path

from tqdm import tqdm

from comat.errors import UserError
from comat.models.files import used_files
from comat.models.hub import find_model
from comat.params import ModelName, Params
from comat.store import write_json

FILE = "models.lock.json"
CHUNK = 1 << 24


def write_lock(params: Params, out: Path) -> None:
    """Find (download, where missing) and hash every model that `params` names; write `models.lock.json`.

    Equal files give equal bytes, wherever they lie.
    """
    found = {model: find_model(model) for model in params.models()}
    listed = {model: used_files(folder, model.own_vae) for model, (folder, _) in found.items()}
    sums = _sums({folder / name for model, (folder, _) in found.items() for name in listed[model]})
    entries = {}
    for model, (folder, commit) in found.items():
        files = {name: {"sha256": sums[folder / name], "bytes": _size(folder / name)} for name in listed[model]}
        own = {"id": model.name, "commit": commit, "sha256": _sum_of(files), "files": files}
        entries[model.key.rpartition(".")[2]] = own
    write_json(out / FILE, entries)


def bound(params: Params, models: Path) -> Params:
    """`params` with each model's name replaced by the folder that holds exactly what the lock in `models` recorded.

    Raises:
        UserError: if there is no lock, it is of other models, or a file has changed its size since or is gone.
    """
    path = models / FILE
    remedy = "run `dvc repro --force --single-item models`"
    if not path.is_file():
        raise UserError(f"{path}: missing; {remedy}")
    entries = json.loads(path.read_text(encoding="utf-8"))
    folders = {}
    for model in params.models():
        entry = entries.get(model.key.rpartition(".")[2])
        if entry is None or entry["id"] != model.name:
            raise UserError(f"{path}: {model.key} is {model.name!r}, recorded is {entry and entry['id']!r}; {remedy}")
        folder, _ = find_model(model, entry["commit"])
        for name, file in entry["files"].items():
            if not (folder / name).is_file() or _size(folder / name) != file["bytes"]:
                raise UserError(f"{folder / name}: not the file that {path} recorded; if it should be, {remedy}")
        folders[model.key] = folder
    return params.with_models(folders)


def _size(path: Path) -> int:
    return path.stat().st_size


def _sum_of(files: dict[str, dict]) -> str:
    """One sha256 for all files: of the lines that `sha256sum` prints."""
    return hashlib.sha256("".join(f"{f['sha256']}  {name}\n" for name, f in files.items()).encode()).hexdigest()


def _sums(paths: Iterable[Path]) -> dict[Path, str]:
    """The sha256 of each file, read in pieces; models that are the same file are read once."""
    ordered = sorted(paths)
    sums: dict[Path, str] = {}
    with tqdm(total=sum(map(_size, ordered)), desc="hashing models", unit="B", unit_scale=True) as progress:
        for path in ordered:
            digest = hashlib.sha256()
            with path.open("rb") as file:
                while piece := file.read(CHUNK):
                    digest.update(piece)
                    progress.update(len(piece))
            sums[path] = digest.hexdigest()
    return sums
