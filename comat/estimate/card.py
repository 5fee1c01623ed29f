"""The device that a run is planned for: this machine's, or one by its memory and rate."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import psutil
import torch

from comat.errors import UserError
from comat.storage.yaml_files import shown

POWERS = {"": 0, "K": 1, "M": 2, "G": 3, "T": 4, "P": 5}
SIZE = re.compile(r"([0-9.]+)\s*([KMGT]?)(i?)B?", re.IGNORECASE)
RATE = re.compile(r"([0-9.]+)\s*([KMGTP]?)\s*FLOPS?(?:/s)?", re.IGNORECASE)
OWN_GROUPS = Path("/proc/self/cgroup")
GROUPS = Path("/sys/fs/cgroup")
"""Where Linux keeps what a group of processes may use; elsewhere there is neither."""


@dataclass(frozen=True)
class Card:
    """Where a run computes: its memory in bytes, and the operations a second of its matrix products, None to measure.

    `name` is said to the user, and so is on which device of this machine the rate was measured, if it was.
    """

    name: str
    memory: int
    rate: float | None = None
    measured_on: str = ""


def parse_size(text: str) -> int:
    """Bytes of a size such as 24GB (of 10^9) or 24GiB (of 2^30).

    Raises:
        UserError: if it is none.
    """
    found = SIZE.fullmatch(text.strip())
    value = _number(found[1]) if found else None
    if found is None or value is None:
        raise UserError(f"--device-memory {shown(text)}: expected a size such as 24GB or 80GiB")
    return int(value * (1024 if found[3] else 1000) ** POWERS[found[2].upper()])


def parse_rate(text: str) -> float:
    """Operations a second of a rate such as 125TFLOP/s.

    Raises:
        UserError: if it is none.
    """
    found = RATE.fullmatch(text.strip())
    value = _number(found[1]) if found else None
    if found is None or value is None:
        raise UserError(f"--rate {shown(text)}: expected a rate such as 125TFLOP/s")
    return value * 1000.0 ** POWERS[found[2].upper()]


def _number(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if value > 0 else None


def card_of(device: torch.device) -> Card:
    """This machine's device, with the memory that it has (not what others leave of it)."""
    if device.type == "cuda":
        properties = torch.cuda.get_device_properties(device)
        return Card(properties.name, int(properties.total_memory))
    return Card(f"{device}", host_memory())


def host_memory() -> int:
    """Bytes of this machine's memory, or of what a container or a batch system leaves this process of it."""
    limits = [psutil.virtual_memory().total]
    for line in _text(OWN_GROUPS).splitlines():  # 0::/group of version 2, 9:memory:/group of version 1
        _, controllers, group = line.split(":", 2)
        if controllers in ("", "memory"):
            root, name = GROUPS / controllers, "memory.max" if not controllers else "memory.limit_in_bytes"
            at = root / group.strip("/")
            texts = [_text(folder / name) for folder in (at, *at.parents) if folder.is_relative_to(root)]
            limits += [int(text) for text in texts if text.strip().isdigit()]  # not "max"
    return min(limits)


def _text(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""
