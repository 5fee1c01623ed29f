"""`comat export`: the LoRA of a finished run in the form that another program reads."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Literal, get_args

from torch import Tensor

from comat.diffusion.lora import FILE
from comat.errors import UserError, clean
from comat.finished.kohya import check_named, kohya_state
from comat.finished.low_rank import LowRank, low_rank
from comat.finished.merge import write_merged
from comat.finished.weights import FinishedRun, Lora, finished_run, shares
from comat.params import Params
from comat.running.device import choose_device
from comat.running.stage import written_whole
from comat.storage.tables import write_json, write_safetensors

Format = Literal["diffusers", "kohya", "merged"]
KOHYA = "comat.safetensors"
ERRORS = "error.json"
EXPORTED_BY = ("base_model", "base_revision", "vae", "vae_revision", "scheduler", "sampling_steps")
"""The parameters that decide over what is written; `precision` may be another than the run's."""
FORMATS: tuple[Format, ...] = get_args(Format)
SHOWN = 8
"""Layers of which the error is printed; all stand in the file."""


def export(params: Params, data: Path, form: Format, rank: int | None, out: Path) -> list[str]:
    """Write the LoRA, or the whole pipeline, of the run in `data` into the folder `out`; returns what to say of it.

    Args:
        rank: of one LoRA for the stock base in the place of CoMat's alone, which is for what the warm-up made of it.

    Raises:
        UserError: if the run is not finished, the form has no place for this model, `out` holds something, or one LoRA
            is asked for and nothing was changed that it has a place for.
    """
    run = finished_run(params, data)
    pipeline = json.loads((run.folder / "model_index.json").read_text(encoding="utf-8"))["_class_name"]
    if form == "kohya":
        check_named(run.family, pipeline)
    elif form == "merged" and rank is not None:
        raise UserError("--rank is of a LoRA, and a merged pipeline has none: leave it out")
    elif rank is not None and (run.lora_folder / "adapter_config.json").is_file():
        raise UserError(f"--rank: diffusers loads no LoRA for a {pipeline}; give --format merged")
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UserError(f"{out}: there is something already; give another --out, or remove it")
    with written_whole(out) as part:
        return _merged(run, part) if form == "merged" else _lora(run, form, rank, part)


def format_of(name: str) -> Format:
    """Raises UserError for another name than those of the forms."""
    for known in FORMATS:
        if name == known:
            return known
    raise UserError(f"--format {clean(name, 60)}: expected {', '.join(FORMATS)}")


def _merged(run: FinishedRun, out: Path) -> list[str]:
    wrong = write_merged(run, out)
    said = [f"a whole pipeline in {run.params.precision}, warm-up and LoRA merged"]
    if wrong > 1e-3:
        said.append(f"rounding to {run.params.precision} makes {wrong:.1%} of what training changed wrong")
    return said


def _lora(run: FinishedRun, form: Format, rank: int | None, out: Path) -> list[str]:
    if rank is None:
        said = []
        if run.warmed:
            said = [
                f"it belongs to {run.warm}, which the warm-up made, not to the stock base; --rank 64 puts both into "
                "one LoRA for the stock base"
            ]
        if form == "diffusers":
            shutil.copytree(run.lora_folder, out, dirs_exist_ok=True)
        else:
            _write_kohya(run, run.lora(), out)
        return said
    made = low_rank(run.changes(), rank, choose_device(run.params.device))
    if not made.lora:
        raise UserError(
            f"--rank: training changed no layer of {run.base.name} that a LoRA has a place for: there is none to "
            "write; look at warmup.steps, train_steps and what the guard kept"
        )
    if form == "diffusers":
        write_safetensors(out / FILE, dict(_diffusers_state(run, made.lora)), {"format": "pt"})
    else:
        _write_kohya(run, made.lora, out)
    errors = {"rank": rank, "total": made.error, "tensors": made.errors}
    write_json(out / ERRORS, errors)
    return list(said_of(made, rank))


def _write_kohya(run: FinishedRun, lora: Mapping[str, Lora], out: Path) -> None:
    config = json.loads((run.warm / "config.json").read_text(encoding="utf-8"))
    state, metadata = kohya_state(lora, config, run.family)
    write_safetensors(out / KOHYA, state, metadata)


def _diffusers_state(run: FinishedRun, lora: Mapping[str, Lora]) -> Iterator[tuple[str, Tensor]]:
    for layer, own in lora.items():
        yield f"{run.family.denoiser}.{layer}.lora_A.weight", own.down
        yield f"{run.family.denoiser}.{layer}.lora_B.weight", own.up


def said_of(made: LowRank, rank: int) -> Iterator[str]:
    """The error of a truncated LoRA: of all, of what it has no place for, and of the layers that lose most."""
    vectors, kernels = len(made.without_place) - len(made.depthwise), len(made.depthwise)
    kinds = f"{vectors} biases and norms" + (f" and {kernels} kernels of depth-wise convolutions" if kernels else "")
    yield f"warm-up and CoMat in one LoRA of rank {rank} for the stock base: {len(made.lora)} layers"
    yield f"error (Frobenius norm of what is left out, of the whole change): {made.error:.2%} in all"
    lost = shares({name: made.left_out[name] for name in made.without_place}) / shares(made.norms)
    yield f"of it {kinds}, for which LoRA has no place: {lost:.2%}"
    worst = sorted(made.lora, key=lambda layer: -made.left_out[f"{layer}.weight"])[:SHOWN]
    yield f"the layers with most of it, and how much of each one's own change that is (all in {ERRORS}):"
    yield from (f"  {made.errors[f'{layer}.weight']:7.2%}  {layer}" for layer in worst)
