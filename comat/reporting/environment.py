"""Where a result was made: versions, device, commit."""

from __future__ import annotations

import platform
import subprocess
from importlib import metadata

import torch

from comat.diffusion.backbone import choose_device

PACKAGES = ("comat", "diffusers", "transformers", "peft", "accelerate", "numpy", "pillow")
CODE = ("comat", "stages", "params.yaml")


def environment(device: str) -> dict[str, str]:
    """What a reader needs to see the same again, by name; `device` as in the parameters."""
    chosen = choose_device(device)
    name = torch.cuda.get_device_name(chosen) if chosen.type == "cuda" else platform.machine()
    return {
        "commit": commit() or "unknown: not run in a git checkout",
        "device": f"{chosen} ({name})",
        "system": platform.system(),
        "Python": platform.python_version(),
        "torch": torch.__version__,  # with the build, which the package's version leaves out
        **{package: metadata.version(package) for package in PACKAGES},
    }


def commit() -> str | None:
    """The git commit checked out here, and whether code or parameters differ from it; None where there is none."""
    head = _git("rev-parse", "HEAD")
    if head is None:
        return None
    return head + (" with changes" if _git("status", "--porcelain", "--", *CODE) else "")


def _git(*words: str) -> str | None:
    try:
        return subprocess.run(["git", *words], capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None
