"""Where a project remembers from run to run what costs time alone to find again; anybody may remove it."""

from __future__ import annotations

import os
from pathlib import Path

TEMPORARY = (".dvc", "tmp", "exps")
"""Where DVC puts the copy of a project in which it runs a queued or temporary experiment."""


def memory_folder(name: str) -> Path:
    """`${COMAT_WORK_DIR:-.work}/name`; without that variable, in DVC's copy for an experiment, that of the project."""
    if work := os.environ.get("COMAT_WORK_DIR"):
        return Path(work) / name
    parts = Path.cwd().parts
    at = next((n for n in range(len(parts)) if parts[n : n + len(TEMPORARY)] == TEMPORARY), None)
    root = Path() if at is None else Path(*parts[:at])
    return root / ".work" / name
