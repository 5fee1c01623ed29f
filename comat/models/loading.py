"""Models from a hub id or a folder in hub layout: safetensors alone, the right class, errors with a remedy."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict, TypeVar, cast

from huggingface_hub import errors as hub
from huggingface_hub import hf_hub_download

from comat.errors import UserError, first_line, is_out_of_memory
from comat.models.waiting import limit_waiting

if TYPE_CHECKING:
    import torch
    from diffusers import ModelMixin
    from torch import nn
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

T = TypeVar("T")
M = TypeVar("M", bound="ModelMixin | PreTrainedModel")

INDEX = "model_index.json"

_REMEDIES: list[tuple[type | tuple[type, ...], str]] = [
    # To who has no access a gated repository is a missing one as well, so it comes first.
    (hub.GatedRepoError, "it is gated; accept its licence at https://huggingface.co/{model}, then `hf auth login`"),
    (hub.RepositoryNotFoundError, "no such repository, or a private one; check the id, or `hf auth login`"),
    (hub.RevisionNotFoundError, "it has no such revision; check the revision, or set it to null for the newest"),
    (
        (hub.LocalEntryNotFoundError, hub.OfflineModeIsEnabled),
        "the hub cannot be reached and the files are not in its cache; run `hf download {model}` where there is a "
        "network, or give a folder",
    ),
    (hub.HFValidationError, "there is no such folder, and it is no hub id (owner/name)"),
]


def loaded(model: str, part: str, load: Callable[[], T]) -> T:
    """Run the loader of a model's part.

    Raises:
        UserError: one line that says which part of which model, why, and what to do.
    """
    limit_waiting()
    try:
        return load()
    except UserError:
        raise
    except Exception as error:  # a configuration of others may hold anything, and so may what it makes loaders raise
        if is_out_of_memory(error):
            raise
        why = f"{type(error).__name__}: {first_line(error)}"
        layout = f"{why} (expected a hub id or a folder in hub layout with safetensors weights)"
        raise UserError(f"model {model!r}: cannot load {part}: {_remedy(model, error) or layout}") from error


def _remedy(model: str, error: BaseException) -> str | None:
    """What to do about what the hub's client raised; transformers and diffusers wrap it in errors of their own.

    A folder is no matter of the hub, though they may ask it for a file that the folder lacks.
    """
    if Path(model).is_dir():
        return None
    chain: list[BaseException] = []
    cause: BaseException | None = error
    while cause is not None and cause not in chain:
        chain.append(cause)
        cause = cause.__cause__ or cause.__context__
    for kind, remedy in _REMEDIES:
        if any(isinstance(found, kind) for found in chain):
            return remedy.format(model=model)
    return None


def pipeline_index(model: str, revision: str | None = None) -> dict[str, Any]:
    """The parts that a pipeline in diffusers layout lists; read without diffusers, whose import takes seconds.

    Raises:
        UserError: if there is no such pipeline.
    """

    def load() -> dict[str, Any]:
        own = Path(model) / INDEX
        file = own if own.parent.is_dir() else Path(hf_hub_download(model, INDEX, revision=revision))
        index = json.loads(file.read_text(encoding="utf-8"))
        if not isinstance(index, dict):
            raise UserError(f"{file}: expected the parts of a pipeline by name, got {type(index).__name__}")
        return index

    return loaded(model, INDEX, load)


def load_tokenizer(model: str, revision: str | None) -> PreTrainedTokenizerBase:
    """The tokenizer of a model, of whatever class it is; nothing of it runs code of others.

    Raises:
        UserError: if it cannot be had.
    """
    from transformers import AutoTokenizer

    return loaded(
        model, "tokenizer", lambda: AutoTokenizer.from_pretrained(model, revision=revision, trust_remote_code=False)
    )


def load_config(model: str, revision: str | None) -> Any:
    """The configuration of a model of transformers; nothing of it runs code of others.

    Raises:
        UserError: if it cannot be had.
    """
    from transformers import AutoConfig

    return loaded(
        model, "config.json", lambda: AutoConfig.from_pretrained(model, revision=revision, trust_remote_code=False)
    )


class LoadingInfo(TypedDict):
    """What is used of the report that both libraries give of a loaded model."""

    missing_keys: Iterable[str]


def load_model(
    kind: type[M],
    model: str,
    revision: str | None = None,
    *,
    part: str,
    dtype: torch.dtype,
    device: torch.device | str = "cpu",
    subfolder: str = "",
    also: tuple[str, ...] = (),
    **build: object,
) -> M:
    """A frozen model of class `kind` on `device`, in evaluation mode, every weight from safetensors.

    `also` are architectures that hold one of this class, and `build` goes to the model's constructor.

    Raises:
        UserError: if it cannot be had, is of another architecture, or lacks weights.
    """
    import torch
    from diffusers import ModelMixin

    where = {"subfolder": subfolder, "revision": revision}
    precision = {"torch_dtype" if issubclass(kind, ModelMixin) else "dtype": dtype}
    # What both libraries do with `output_loading_info`, which the annotation of neither says.
    from_pretrained = cast("Callable[..., tuple[M, LoadingInfo]]", kind.from_pretrained)

    def load() -> M:
        # Both libraries would fill a model of another class with random weights, and only warn.
        expected, found = _architectures(kind, model, where)
        if found != expected and found not in also:
            raise UserError(f"model {model!r}: {part} is of another architecture: expected {expected}, found {found}")
        options = {**where, **precision, "use_safetensors": True, "output_loading_info": True}
        result, report = from_pretrained(model, **options, **build)
        missing = sorted(report["missing_keys"])
        if missing:
            raise UserError(
                f"model {model!r}: {part} lacks {len(missing)} weights of a {kind.__name__}, {missing[0]} among them; "
                "is it another architecture, or an unfinished download?"
            )
        module: nn.Module = result  # transformers wraps `to` in what is no method to mypy
        module.requires_grad_(False).eval().to(device)
        broken = next((name for name, weight in module.named_parameters() if not torch.isfinite(weight).all()), None)
        if broken:
            raise UserError(
                f"model {model!r}: {part}: {broken} holds numbers that are not finite in {dtype}; download it again or "
                "set another precision"
            )
        return result

    return loaded(model, part, load)


def _architectures(kind: type[M], model: str, where: Mapping[str, str | None]) -> tuple[str, str | None]:
    """The architecture that `kind` is of, and the one that the configuration of a model names."""
    from diffusers import ModelMixin

    if issubclass(kind, ModelMixin):
        # Of ConfigMixin, as every model of diffusers is.
        return kind.__name__, kind.load_config(model, **where).get("_class_name")  # type: ignore[attr-defined]
    assert kind.config_class is not None  # only that of the abstract PreTrainedModel is
    expected = kind.config_class.model_type
    return expected, kind.config_class.get_config_dict(model, **where)[0].get("model_type", expected)
