"""Where a model's files lie: in a folder of the user's, or in the hub's cache, downloaded where they are missing."""

from __future__ import annotations

from pathlib import Path

from huggingface_hub import constants, snapshot_download
from huggingface_hub.errors import (
    GatedRepoError,
    HFValidationError,
    HfHubHTTPError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from comat.errors import UserError
from comat.models.files import check_complete, used_patterns
from comat.params import ModelName


def find_model(model: ModelName, commit: str | None = None) -> tuple[Path, str | None]:
    """The folder that holds the used files of a model, and the commit they are of (None for the user's own folder).

    A `commit` that is in the cache whole is not asked of the hub again.

    Raises:
        UserError: if a part has no weights in safetensors, or the hub does not give the model; with the remedy.
    """
    local = Path(model.name)
    if local.is_dir():
        check_complete(local, model.key, model.name, model.own_vae)
        return local, None
    revision = commit or model.revision
    try:
        found = snapshot_download(model.name, revision=revision, allow_patterns=used_patterns(model.own_vae))
    except (HfHubHTTPError, HFValidationError, OSError) as error:
        raise UserError(f"{model.key} {model.name!r}: {_remedy(error, model, revision)}") from None
    check_complete(Path(found), model.key, model.name, model.own_vae)
    return Path(found), Path(found).name


def _remedy(error: Exception, model: ModelName, revision: str | None) -> str:
    """What went wrong, in the order from the most to the least special, and what to do."""
    if isinstance(error, GatedRepoError):
        page = f"{constants.ENDPOINT}/{model.name}"
        return f"this model is gated; accept its terms at {page}, then log in with `hf auth login`"
    if isinstance(error, RevisionNotFoundError):
        return f"the hub has no revision {revision!r} of it; take a commit from its history, or null for the newest"
    if isinstance(error, RepositoryNotFoundError):
        return "neither a folder here nor a model of the hub; check the name, or log in with `hf auth login` if private"
    if isinstance(error, HFValidationError):
        return "no such folder, and no hub id either (expected owner/name)"
    if isinstance(error, LocalEntryNotFoundError | OfflineModeIsEnabled):
        why = "the hub is switched off by HF_HUB_OFFLINE" if constants.HF_HUB_OFFLINE else "the hub is not reachable"
        return (
            f"no such folder, not (wholly) in the cache {constants.HF_HUB_CACHE}, and {why}; download it where there "
            f"is network (`hf download {model.name}`), or give a folder in hub layout"
        )
    reason = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
    return f"cannot be downloaded: {reason[:300]}"
