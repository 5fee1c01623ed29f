"""One loop for every model of the recipe: AdamW, warm-up and cosine decay, resumable at any moment."""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor, nn
from tqdm import tqdm

from comat.randomness import generator

M = TypeVar("M", bound=nn.Module)

SAVE_EVERY = 100


def fit(
    name: str,
    model: M,
    loss: Callable[[torch.Generator], Tensor],
    *,
    steps: int,
    learning_rate: float,
    work: Path,
    seed: int = 0,
    precision: str = "fp32",
) -> M:
    """Minimise `loss(generator)` over `model`'s parameters; returns the model.

    On a GPU where there is one, otherwise on the CPU, where the model is before and after; `loss` brings its data to
    where the model is, and draws on the CPU.

    The generator of a step depends on (seed, name, step) alone, and the state is saved every 100 steps into `work`,
    so an interrupted run goes on to the weights of an undisturbed one.
    """
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model.to(device)
    optimizer = torch.optim.AdamW(model.parameters(), lr=learning_rate, betas=(0.9, 0.99), weight_decay=0.01)
    path, start = work / f"{name}.pt", 0
    if path.exists():
        state = torch.load(path, map_location=device, weights_only=True)
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        start = state["step"]
    model.train()
    progress = tqdm(range(start, steps), initial=start, total=steps, desc=name)
    for step in progress:
        for group in optimizer.param_groups:
            group["lr"] = learning_rate * _schedule(step, steps)
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16"):
            value = loss(generator(seed, name, step))
        value.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        if step % 20 == 0:
            progress.set_postfix(loss=f"{value.item():.4f}", refresh=False)
        if (step + 1) % SAVE_EVERY == 0 and step + 1 < steps:
            _save(path, model, optimizer, step + 1)
    return model.cpu().eval()


def _schedule(step: int, steps: int) -> float:
    """Linear over the first 5% of the steps, then a cosine to zero."""
    warm = max(1, steps // 20)
    return (step + 1) / warm if step < warm else 0.5 + 0.5 * math.cos(math.pi * (step - warm) / (steps - warm))


def _save(path: Path, model: nn.Module, optimizer: torch.optim.Optimizer, step: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    state = {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "step": step}
    torch.save(state, path.with_suffix(".tmp"))
    os.replace(path.with_suffix(".tmp"), path)
