"""Where a result was made: versions and device. The commit is that which holds the result's dvc.lock."""

from __future__ import annotations

import platform
from importlib import metadata

import torch

from comat.running.device import choose_device

PACKAGES = ("comat", "diffusers", "transformers", "peft", "accelerate", "numpy", "pillow")


def environment(device: str) -> dict[str, str]:
    """What a reader needs to see the same again, by name; `device` as in the parameters."""
    chosen = choose_device(device)
    name = torch.cuda.get_device_name(chosen) if chosen.type == "cuda" else platform.machine()
    return {
        "device": f"{chosen} ({name})",
        "system": platform.system(),
        "Python": platform.python_version(),
        "torch": torch.__version__,  # with the build, which the package's version leaves out
        **{package: metadata.version(package) for package in PACKAGES},
    }
