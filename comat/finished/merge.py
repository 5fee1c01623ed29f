"""Warm-up and LoRA merged into a whole pipeline in hub layout, which needs nothing beside it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from huggingface_hub import save_torch_state_dict
from torch import Tensor

from comat.diffusion.schedulers import make_sampler
from comat.finished.weights import STEM, FinishedRun, Weights, shares
from comat.models.download import find_model
from comat.models.files import files_of
from comat.models.names import named_models
from comat.running.device import DTYPES
from comat.storage.tables import write_json

SHARD = "10GB"
"""The most that one file of weights holds, as diffusers writes them."""


def write_merged(run: FinishedRun, out: Path) -> float:
    """Write the pipeline into `out`: the tuned denoiser in `precision` of the parameters, the base's other files.

    The scheduler is the one that the run was evaluated with. Returns how much of what warm-up and LoRA changed the
    rounding to `precision` makes wrong, relative in the Frobenius norm.
    """
    for name in files_of(run.folder, run.base):
        if not name.startswith(f"{run.family.denoiser}/"):
            _copy(run.folder / name, out / name)
    _write_denoiser_config(run, out)
    dtype, stock = DTYPES[run.params.precision], Weights(run.folder / run.family.denoiser)
    state: dict[str, Tensor] = {}
    changed: dict[str, float] = {}
    wrong: dict[str, float] = {}
    for name, value in run.tuned():
        state[name] = value.to(dtype).contiguous()
        changed[name] = float((value - stock[name].float()).norm())
        wrong[name] = float((state[name].float() - value).norm())
    pattern = f"{STEM}{{suffix}}.safetensors"
    save_torch_state_dict(state, out / run.family.denoiser, filename_pattern=pattern, max_shard_size=SHARD)
    _write_vae(run, out)
    _write_scheduler(run, out)
    return shares(wrong) / shares(changed) if shares(changed) else 0.0


def _copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, target)


def _write_denoiser_config(run: FinishedRun, out: Path) -> None:
    _copy(run.warm / "config.json", out / run.family.denoiser / "config.json")


def _write_vae(run: FinishedRun, out: Path) -> None:
    """The autoencoder that takes the place of the base's own, where the parameters name one."""
    for other in named_models(run.params):
        if other.key == "vae":
            folder, _ = find_model(other)
            for name in files_of(folder, other):
                _copy(folder / name, out / "vae" / name)


def _write_scheduler(run: FinishedRun, out: Path) -> None:
    if run.params.scheduler == "model":
        return
    config = json.loads((run.folder / "scheduler/scheduler_config.json").read_text(encoding="utf-8"))
    sampler = make_sampler(run.params.scheduler, config, run.params.sampling_steps, flow=run.family.flow)
    sampler.scheduler.save_pretrained(out / "scheduler")
    index = json.loads((out / "model_index.json").read_text(encoding="utf-8"))
    index["scheduler"] = ["diffusers", type(sampler.scheduler).__name__]
    write_json(out / "model_index.json", index)
