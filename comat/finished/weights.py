"""The denoiser of a finished run as files: what the stock base had, what warm-up and CoMat have made of it.

Tensors are read one at a time, so that nothing of it holds a model.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from comat.diffusion.load import denoiser_in
from comat.diffusion.lora import FILE
from comat.errors import UserError
from comat.models.download import find_model
from comat.models.families import Family, family_of
from comat.models.lock import pinned
from comat.models.names import ModelName, named_models
from comat.params import Params
from comat.storage.places import inside
from comat.storage.tables import read_safetensors

STEM = "diffusion_pytorch_model"
_SIDE = re.compile(r"\.(?:lora\.(down|up)|lora_(A|B))\.weight$")


@dataclass(frozen=True)
class Lora:
    """Of a linear layer's update: up (outputs, rank) times down (rank, inputs)."""

    down: Tensor
    up: Tensor

    @property
    def change(self) -> Tensor:
        return self.up.float() @ self.down.float()


class Weights:
    """The tensors of a folder in hub layout by name, in one file or in several.

    Raises:
        UserError: if there are none.
    """

    def __init__(self, folder: Path) -> None:
        whole, index = folder / f"{STEM}.safetensors", folder / f"{STEM}.safetensors.index.json"
        if whole.is_file():
            self._files = dict.fromkeys(_names(whole), whole)
        elif index.is_file():
            listed = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
            self._files = {name: inside(folder, file, str(index)) for name, file in listed.items()}
        else:
            raise UserError(
                f"{folder}: expected {whole.name} or {index.name} in it, found neither; run its stage again"
            )

    @property
    def names(self) -> list[str]:
        return sorted(self._files)

    def __getitem__(self, name: str) -> Tensor:
        with safe_open(self._files[name], "pt") as file:
            return file.get_tensor(name)


def _names(path: Path) -> list[str]:
    try:
        with safe_open(path, "pt") as file:
            return list(file.keys())
    except SafetensorError as error:
        raise UserError(f"{path}: not a whole safetensors file ({error}); run its stage again") from None


@dataclass(frozen=True)
class FinishedRun:
    """The base model of a run, its denoiser before and after the warm-up, and its LoRA."""

    params: Params
    base: ModelName
    folder: Path  # of the base model, in hub layout
    family: Family
    warm: Path  # of the denoiser that the LoRA belongs to
    lora_folder: Path

    @property
    def warmed(self) -> bool:
        """Whether the warm-up has changed the denoiser."""
        return self.warm != self.folder / self.family.denoiser

    def lora(self) -> dict[str, Lora]:
        """The LoRA by the names of the layers that it sits on.

        Raises:
            UserError: if the denoiser has not the layers that it is for.
        """
        path = self.lora_folder / FILE
        sides: dict[str, dict[str, Tensor]] = {}
        for name, value in read_safetensors(path).items():
            found = _SIDE.search(name)
            if not found:
                raise UserError(f"{path}: {name}: expected the weights of a LoRA alone; run `dvc repro train`")
            layer = name[: found.start()].removeprefix(f"{self.family.denoiser}.")
            sides.setdefault(layer, {})["down" if found[1] == "down" or found[2] == "A" else "up"] = value
        return {layer: Lora(**own) for layer, own in sorted(sides.items())}

    def tuned(self) -> Iterator[tuple[str, Tensor]]:
        """Every tensor of the denoiser that draws, float32: that of the warm-up, and where LoRA sits both together.

        Raises:
            UserError: if the LoRA is not of this denoiser.
        """
        warm, lora = Weights(self.warm), self.lora()
        strange = sorted({f"{layer}.weight" for layer in lora} - {*warm.names})
        if strange:
            raise UserError(f"{self.lora_folder / FILE}: {self.warm} has no {strange[0]}; run `dvc repro train`")
        for name in warm.names:
            value = warm[name].float()
            update = lora.get(name.removesuffix(".weight")) if name.endswith(".weight") else None
            yield name, value if update is None else value + update.change

    def changes(self) -> Iterator[tuple[str, Tensor]]:
        """Of every tensor that warm-up or LoRA changed: by what, float32.

        Raises:
            UserError: if the warm-up's denoiser is not one of this base.
        """
        stock = Weights(self.folder / self.family.denoiser)
        for name, value in self.tuned():
            if name not in stock.names:
                raise UserError(f"{self.warm}: {name} is no weight of {self.base.name}; run `dvc repro warmup`")
            change = value - stock[name].float()
            if torch.any(change):
                yield name, change


def finished_run(params: Params, data: Path) -> FinishedRun:
    """The run in the folder `data`.

    Raises:
        UserError: if it is not finished, or its base model cannot be had.
    """
    from comat.models.loading import pipeline_index

    warmup, lora = data / "warmup", data / "train/lora"
    if not (lora / FILE).is_file() or not warmup.is_dir():
        raise UserError(f"{lora / FILE} and {warmup}: expected both; run `dvc repro` first")
    params = pinned(params, data / "models", "base_model", "vae")
    base = next(model for model in named_models(params) if model.key == "base_model")
    folder, _ = find_model(base)
    family = family_of(base.name, pipeline_index(base.name, base.revision))
    own = denoiser_in(warmup)
    return FinishedRun(params, base, folder, family, Path(own) if own else folder / family.denoiser, lora)


def shares(parts: Mapping[str, float]) -> float:
    """The Frobenius norm of a whole, of its parts' norms."""
    return sum(value**2 for value in parts.values()) ** 0.5
