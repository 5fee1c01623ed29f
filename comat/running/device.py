"""Where a stage computes, and in which precision."""

from __future__ import annotations

import os

import torch

from comat.errors import UserError

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def use_deterministic_algorithms(on: bool) -> None:
    """Of torch's algorithms those that give equal bytes twice on one device, where there are any, or the fastest.

    cuBLAS reads its part, which is left alone where it is set, when a CUDA device is first used.
    """
    if on:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(on, warn_only=True)
    # Otherwise it also fills all memory that it is about to write to, against code that reads what it did not write.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]


def choose_device(name: str) -> torch.device:
    """`auto` is the GPU where there is one.

    Raises:
        UserError: if this machine has no such device.
    """
    gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if name == "auto":
        return torch.device("cuda" if gpus else "cpu")
    device = torch.device(name)
    there = {"cuda": (device.index or 0) < gpus, "mps": torch.backends.mps.is_available()}
    if not there.get(device.type, True):
        raise UserError(
            f"device is {name}, but torch finds {gpus} CUDA devices here; set it to auto or cpu, or install the torch "
            "that fits the driver"
        )
    return device
