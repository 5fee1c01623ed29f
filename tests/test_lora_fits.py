"""A LoRA fits to its last weight, or is refused."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from comat.diffusion.backbones import load_base
from comat.diffusion.lora import FILE, add_lora, export_lora, load_lora
from comat.errors import UserError

# A LoRA that fits


@pytest.fixture
def lora(tiny: Path, tmp_path: Path) -> Path:
    """The folder of a LoRA of rank 2 for the tiny SDXL."""
    backbone = load_base(str(tiny / "sdxl"))
    add_lora(backbone, 2, torch.Generator().manual_seed(0))
    export_lora(backbone, tmp_path / "lora")
    return tmp_path / "lora"


def spoil(folder: Path, change) -> None:
    weights = load_file(folder / FILE)
    change(weights, sorted(weights))
    save_file(weights, folder / FILE)


def test_a_lora_that_fits_is_taken(tiny: Path, lora: Path) -> None:
    load_lora(load_base(str(tiny / "sdxl")), lora)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda w, names: w.pop(names[0]), r"must have 1 are missing, and 0 are left over"),
        (lambda w, names: w.update(other=torch.ones(2, 2)), r"0 are missing, and 1 are left over \(it has other\)"),
        (lambda w, names: w.clear(), r"expected the weights of a LoRA of one rank, found ranks \[\]"),
        (lambda w, names: w.update({names[0]: torch.ones(3, 8)}), r"one rank, found ranks \[2, 3\]"),
        (lambda w, names: w[names[0]].fill_(math.nan), r"1 of \d+ weights are not finite"),
    ],
)
def test_a_lora_that_does_not_fit_is_refused(tiny: Path, lora: Path, change, message: str) -> None:
    spoil(lora, change)
    with pytest.raises(UserError, match=message):
        load_lora(load_base(str(tiny / "sdxl")), lora)


def test_a_lora_of_another_model_is_refused(tiny: Path, lora: Path) -> None:
    """Of SD1.5, whose modules have the same names but other widths."""
    with pytest.raises(UserError, match=r"expected \(.*\), found \(.*\); it was trained on another|are missing"):
        load_lora(load_base(str(tiny / "sd15")), lora)


def test_a_lora_that_is_not_finite_is_not_written(tiny: Path, tmp_path: Path) -> None:
    backbone = load_base(str(tiny / "sdxl"))
    weights = add_lora(backbone, 2, torch.Generator().manual_seed(0))
    with torch.no_grad():
        weights[0].fill_(math.inf)
    with pytest.raises(UserError, match=r"1 of \d+ weights are not finite"):
        export_lora(backbone, tmp_path)
    assert not list(tmp_path.iterdir())
