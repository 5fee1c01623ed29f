"""Where a model's files lie: in a folder of the user's, or in the hub's cache, downloaded where they are missing."""

from __future__ import annotations

from pathlib import Path

from huggingface_hub import constants, errors, snapshot_download

from comat.errors import UserError
from comat.models.files import check_complete, used_patterns
from comat.params import ModelName


def find_model(model: ModelName, offline: bool = False) -> tuple[Path, str | None]:
    """The folder that holds the used files of a model, and the commit they are of (None for the user's own folder).

    Only these files are downloaded; `offline` looks in the hub's cache alone.

    Raises:
        UserError: if a part has no weights in safetensors, or the hub does not give the model; with the remedy.
    """
    folder, commit = Path(model.name), None
    if not folder.is_dir():
        patterns = used_patterns(model.own_vae)
        try:
            found = snapshot_download(
                model.name, revision=model.revision, allow_patterns=patterns, local_files_only=offline
            )
        except (errors.HfHubHTTPError, errors.HFValidationError, OSError) as error:
            raise UserError(f"{model.key} {model.name!r}: {_remedy(error, model)}") from None
        folder, commit = Path(found), Path(found).name
    check_complete(folder, model.key, model.name, model.own_vae)
    return folder, commit


def _remedy(error: Exception, model: ModelName) -> str:
    """What went wrong and what to do; the most special error first, since the hub's errors inherit from each other."""
    if isinstance(error, errors.GatedRepoError):
        page = f"{constants.ENDPOINT}/{model.name}"
        return f"it is gated; accept its terms at {page}, then log in with `hf auth login`"
    if isinstance(error, errors.RevisionNotFoundError):
        return f"the hub has no revision {model.revision!r} of it; take one of its commits, or null for the newest"
    if isinstance(error, errors.RepositoryNotFoundError):
        return "neither a folder here nor a model of the hub; check the name, or log in with `hf auth login`"
    if isinstance(error, errors.HFValidationError):
        return "there is no such folder, and a hub id has the form owner/name"
    if isinstance(error, errors.LocalEntryNotFoundError | errors.OfflineModeIsEnabled):
        off = constants.HF_HUB_OFFLINE
        why = "the hub is switched off (HF_HUB_OFFLINE)" if off else "the hub cannot be reached"
        return (
            f"no such folder, not wholly in the cache {constants.HF_HUB_CACHE}, and {why}; "
            f"run `hf download {model.name}` where there is a network, or give a folder in hub layout"
        )
    reason = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
    return f"cannot be downloaded: {reason[:300]}"
