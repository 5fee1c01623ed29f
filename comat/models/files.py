"""Which files of a model are used: one set of weights in safetensors, its configuration and tokenizers, nothing else.

Half-precision copies, pickles and single-file checkpoints that many repositories also hold are never used.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from huggingface_hub.utils import filter_repo_objects
from typing_extensions import TypedDict

from comat.errors import UserError
from comat.models.families import DENOISER_PARTS, TEXT_PARTS, TOKENIZER_PARTS, has_part
from comat.models.names import ModelName
from comat.storage.folders import files_below
from comat.storage.json_files import read_json
from comat.storage.places import inside

TOKENIZER = (
    "added_tokens.json",
    "chat_template.jinja",
    "merges.txt",
    "spiece.model",
    "special_tokens_map.json",
    "tokenizer.json",
    "tokenizer.model",
    "tokenizer_config.json",
    "vocab.json",
    "vocab.txt",
)
PROCESSOR = ("generation_config.json", "preprocessor_config.json", "processor_config.json")
STEMS = dict.fromkeys(TEXT_PARTS, "model") | dict.fromkeys(DENOISER_PARTS, "diffusion_pytorch_model")
"""Parts of a pipeline in diffusers layout that hold weights → how their files begin; `vae` joins where it is used."""
VAE = {"vae": "diffusion_pytorch_model"}


class WeightIndex(TypedDict):
    """What is read of the index of weights that stand in several files."""

    weight_map: dict[str, str]


def _weights(part: str, stem: str) -> list[str]:
    names = [f"{stem}.safetensors", f"{stem}.safetensors.index.json", f"{stem}-?????-of-?????.safetensors"]
    return [f"{part}{name}" for name in ("config.json", *names)]


def used_patterns(own_vae: bool) -> list[str]:
    """Patterns of the used files, for a pipeline in diffusers layout and for a single model alike."""
    patterns = ["model_index.json", "scheduler/scheduler_config.json", *PROCESSOR, *TOKENIZER]
    patterns += [f"{folder}/{name}" for folder in TOKENIZER_PARTS for name in TOKENIZER]
    for part, stem in (STEMS | VAE if own_vae else STEMS).items():
        patterns += _weights(f"{part}/", stem)
    return [*patterns, *_weights("", "model"), *_weights("", "diffusion_pytorch_model")]


def used_files(folder: Path, own_vae: bool = True) -> list[str]:
    """The used files that are in `folder`: paths relative to it, sorted."""
    found = (path.relative_to(folder).as_posix() for path in files_below(folder))
    return sorted(filter_repo_objects(found, allow_patterns=used_patterns(own_vae)))


def files_of(folder: Path, model: ModelName) -> list[str]:
    """The used files of `model` that are in `folder`: paths relative to it, sorted."""
    if model.files:
        return sorted(name for name in model.files if (folder / name).is_file())
    return used_files(folder, model.own_vae)


def check_complete(folder: Path, model: ModelName) -> None:
    """See that every part of the model has its configuration and all of its weights.

    Raises:
        UserError: naming parameter, model and part, what was expected, and what to do.
    """
    if model.files:
        if not (folder / model.files[0]).is_file():
            raise UserError(f"{model.key} {model.name!r}: has no {model.files[0]}; download it again, or name its file")
        return
    index = folder / "model_index.json"
    if index.is_file():
        listed = read_json(index, dict[str, object], "an index of a pipeline", "download the model again")
        stems = {
            part: [stem] for part, stem in (STEMS | VAE if model.own_vae else STEMS).items() if has_part(listed, part)
        }
    else:
        stems = {"": ["model", "diffusion_pytorch_model"]}
    for part, names in stems.items():
        problem = _problem(folder / part, names)
        if problem:
            where = f"its part {part}" if part else "it"
            raise UserError(f"{model.key} {model.name!r}: {where} {problem}")


def _problem(folder: Path, stems: Sequence[str]) -> str | None:
    if not (folder / "config.json").is_file():
        return "has no config.json; expected a hub id or a folder in diffusers or transformers layout"
    for stem in stems:
        index = folder / f"{stem}.safetensors.index.json"
        if (folder / f"{stem}.safetensors").is_file():
            return None
        if index.is_file():
            listed = read_json(index, WeightIndex, "an index of weights", "download the model again")
            shards = set(listed["weight_map"].values())
            for shard in shards:
                inside(folder, shard, str(index))
            missing = sorted(shard for shard in shards if not (folder / shard).is_file())
            return f"lacks {len(missing)} of {len(shards)} files of weights, {missing[0]} first" if missing else None
    expected = " or ".join(f"{stem}.safetensors" for stem in stems)
    others = sorted(path.name for path in _other_weights(folder.iterdir()))
    if others:
        return (
            f"has no {expected}, only {', '.join(others[:3])}; save the weights as full safetensors "
            "(`save_pretrained`), or name a revision that holds them"
        )
    return f"has no weights; put {expected} there, or download the model again"


def _other_weights(paths: Iterable[Path]) -> list[Path]:
    return [path for path in paths if path.suffix in (".bin", ".pt", ".pth", ".ckpt", ".safetensors", ".msgpack")]
