"""Finding, downloading and hashing the models: the writing side of `models.lock.json`."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Mapping
from pathlib import Path

from tqdm import tqdm

from comat.errors import UserError
from comat.models.download import find_configurations, find_model
from comat.models.files import files_of
from comat.models.fit import check_base, check_checkpointing, check_drawing, check_judged, check_kind
from comat.models.lock import FILE, LockedFile, LockEntry, sum_of_model
from comat.models.names import KEYS, ModelName, named_models, role_of
from comat.models.sums import sum_of_file
from comat.params import Params
from comat.storage.tables import write_json

NOTHING: LockEntry = {"id": None, "revision": None, "commit": None, "sha256": None, "files": {}}


def write_lock(params: Params, out: Path) -> None:
    """Find (download, where missing) and hash every model that `params` names; write `models.lock.json`.

    Equal parameters and files give equal bytes, whether a model is downloaded or cached.

    Raises:
        UserError: if a model cannot be had, or a part of it has no weights in safetensors; with the remedy.
    """
    check_models(params)
    found = {model: find_model(model) for model in named_models(params)}
    listed = {model: {name: folder / name for name in files_of(folder, model)} for model, (folder, _) in found.items()}
    sums = _sums({path for paths in listed.values() for path in paths.values()})
    entries = {role_of(key): NOTHING for key in KEYS}
    for model, (_, commit) in found.items():
        files = {name: LockedFile(sha256=sums[path], bytes=path.stat().st_size) for name, path in listed[model].items()}
        entries[model.role] = {
            "id": model.name,
            "revision": model.revision,
            "commit": commit,
            "sha256": sum_of_model(files),
            "files": files,
        }
    # A copy under another name is the same model.
    params.no_teacher_judges({model.key: entries[model.role]["sha256"] for model in found})
    write_json(out / FILE, entries)


def check_models(params: Params) -> None:
    """Look at the models' configurations before any weights are downloaded.

    Raises:
        UserError: if a model cannot be had, is not of the kind that its parameter asks for, or would be drawn as what
            it is not.
    """
    check_configurations(
        params, {model: find_configurations(model) for model in named_models(params) if not model.files}
    )


def check_configurations(params: Params, folders: Mapping[ModelName, Path] | None = None) -> None:
    """What `check_models` looks at, of the models in `folders`; by default of those that are folders or in the cache.

    Raises:
        UserError: as `check_models`, but for models that are not at hand.
    """
    folders = at_hand(params) if folders is None else folders
    vae = next((folder for model, folder in folders.items() if model.key == "vae"), None)
    for model, folder in folders.items():
        check_configuration(model, folder, vae, params.discriminator)
    check_together(params, folders)


def check_together(params: Params, folders: Mapping[ModelName, Path]) -> None:
    """See that the base is drawn by a sampler of its kind, its decoder can be checkpointed where that is asked, and the
    discriminator reads its latents.

    Raises:
        UserError: naming the parameter; of models that `check_configuration` has passed.
    """
    by_key = {model.key: (model, folder) for model, folder in folders.items()}
    if "base_model" not in by_key:
        return
    base = by_key["base_model"][1]
    check_drawing(base, params.scheduler, params.guidance_scale)
    check_checkpointing(base, params.train.gradient_checkpointing)
    if "discriminator_model" in by_key and params.discriminator == "denoiser":
        model, folder = by_key["discriminator_model"]
        check_judged(base, folder, model)


def at_hand(params: Params) -> dict[ModelName, Path]:
    """The models whose configurations can be read without a download, and where."""
    found = {}
    for model in named_models(params):
        if not model.files:
            with contextlib.suppress(UserError):
                found[model] = find_configurations(model, offline=True)
    return found


def check_configuration(model: ModelName, folder: Path, vae: Path | None, discriminator: str) -> None:
    """What `check_models` looks at, of one model; `vae` is the autoencoder that takes the place of the base's own."""
    if model.key == "base_model":
        check_base(folder, model, vae)
    elif model.key == "discriminator_model" and discriminator == "denoiser":
        check_base(folder, model)
    else:
        check_kind(folder, model)


def identity(model: ModelName) -> str:
    """ "id@commit" of a model of the hub, downloaded where it is missing; of a folder the start of its sha256.

    Raises:
        UserError: if the model cannot be had.
    """
    folder, commit = find_model(model)
    paths = {name: folder / name for name in files_of(folder, model)}
    revision = commit or sum_of_model({name: {"sha256": sum_of_file(path)} for name, path in paths.items()})[:12]
    return f"{model.name}@{revision}"


def _sums(paths: Iterable[Path]) -> dict[Path, str]:
    """The sha256 of each file; models that are the same file are read once."""
    ordered = sorted(paths)
    total = sum(path.stat().st_size for path in ordered)
    with tqdm(total=total, desc="hashing models", unit="B", unit_scale=True) as progress:
        return {path: sum_of_file(path, progress.update) for path in ordered}
