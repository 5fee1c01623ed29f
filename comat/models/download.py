"""Where a model's files lie: in a folder of the user's, or in the hub's cache, downloaded where they are missing."""

from __future__ import annotations

from pathlib import Path

from huggingface_hub import snapshot_download

from comat.models.files import check_complete, used_patterns
from comat.models.loading import loaded
from comat.models.names import ModelName

CONFIGURATIONS = ["model_index.json", "config.json", "*/config.json", "scheduler/scheduler_config.json"]


def find_model(model: ModelName, offline: bool = False) -> tuple[Path, str | None]:
    """The folder that holds the used files of a model, and the commit they are of (None for the user's own folder).

    Only these files are downloaded; `offline` looks in the hub's cache alone.

    Raises:
        UserError: if a part has no weights in safetensors, or the hub does not give the model; with the remedy.
    """
    own = Path(model.name)
    if own.is_dir():
        check_complete(own, model)
        return own, None
    folder = _snapshot(model, list(model.files) or used_patterns(model.own_vae), offline)
    check_complete(folder, model)
    return folder, folder.name


def find_configurations(model: ModelName, offline: bool = False) -> Path:
    """A folder that holds at least the configurations of a model, without the download of weights.

    Raises:
        UserError: if the hub does not give them; with the remedy.
    """
    own = Path(model.name)
    return own if own.is_dir() else _snapshot(model, CONFIGURATIONS, offline)


def _snapshot(model: ModelName, patterns: list[str], offline: bool) -> Path:
    def download() -> str:
        return snapshot_download(model.name, revision=model.revision, allow_patterns=patterns, local_files_only=offline)

    return Path(loaded(model.name, model.key, download))
