"""`models.lock.json`: what exactly the models are that the parameters name, and the parameters bound to that.

One entry a role: {"id", "revision", "commit", "sha256", "files": {name: {"sha256", "bytes"}}}, all null where the
parameters name no model. A stage depends on the `sha256` of the roles it loads (dvc.yaml) and loads them by id and
commit, so a model that changes re-runs its users and nothing else.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

from typing_extensions import TypedDict

from comat.errors import UserError
from comat.models.families import TOKENIZER_PARTS
from comat.models.files import files_of
from comat.models.names import ModelName, named_models, with_revisions
from comat.models.sums import sum_of_file
from comat.params import Params
from comat.storage.json_files import read_json
from comat.storage.places import inside

FILE = "models.lock.json"
REMEDY = "run `dvc repro --force --single-item models`, then `dvc repro`"


class LockedFile(TypedDict):
    sha256: str
    bytes: int


class LockEntry(TypedDict):
    id: str | None
    revision: str | None
    commit: str | None
    sha256: str | None
    files: dict[str, LockedFile]


def sum_of_model(files: Mapping[str, Mapping]) -> str:
    """One sha256 for a model: of the lines that `sha256sum` prints for its files."""
    return hashlib.sha256("".join(f"{f['sha256']}  {name}\n" for name, f in files.items()).encode()).hexdigest()


TOKENIZERS = tuple(f"{part}/" for part in TOKENIZER_PARTS)
"""The folders of a base model that hold what reads prompts."""


def pinned(params: Params, models: Path, *roles: str, within: tuple[str, ...] = ("",)) -> Params:
    """`params` with the models of `roles` at the commits that the lock in the folder `models` recorded.

    Args:
        within: how the names of the files begin that the caller loads: of a folder no others are read.

    Raises:
        UserError: if there is no lock, it is of other models, or a folder of the user's does not hold what it did.
    """
    path = models / FILE
    if not path.is_file():
        raise UserError(f"{path}: missing; run `dvc repro models`")
    entries = read_json(path, dict[str, LockEntry], "a record of models", REMEDY)
    wanted = [model for model in named_models(params) if model.role in roles]
    for model in wanted:
        _check(model, entries.get(model.role), path, within)
    return with_revisions(params, {model.key: entries[model.role]["commit"] for model in wanted})


def _check(model: ModelName, entry: LockEntry | None, path: Path, within: tuple[str, ...]) -> None:
    if entry is None or (model.name, model.revision) != (entry["id"], entry["revision"]):
        asked = f"{model.name!r} at {model.revision}"
        recorded = f"{entry['id']!r} at {entry['revision']}" if entry else "nothing"
        raise UserError(f"{path}: {model.key} is {asked}, recorded is {recorded}; {REMEDY}")
    if not Path(model.name).is_dir():
        return
    added = sorted({*files_of(Path(model.name), model)} - {*entry["files"]})
    if added:
        raise UserError(f"{Path(model.name) / added[0]}: {path} did not record this file; if it should be, {REMEDY}")
    for name, file in entry["files"].items():
        if not name.startswith(within):
            continue
        own = inside(Path(model.name), name, str(path))
        if not own.is_file() or own.stat().st_size != file["bytes"] or sum_of_file(own) != file["sha256"]:
            raise UserError(f"{own}: not the file that {path} recorded; if it should be, {REMEDY}")
