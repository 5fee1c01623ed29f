"""Where a project remembers from run to run what costs time alone to find again; anybody may remove it."""

from __future__ import annotations

from pathlib import Path

from comat.storage.folders import work_root

TEMPORARY = (".dvc", "tmp", "exps")
"""Where DVC puts the copy of a project in which it runs a queued or temporary experiment."""


def memory_folder(name: str) -> Path:
    """`name` in `work_root()`; of DVC's copy for an experiment, without COMAT_WORK_DIR, that of the project."""
    parts = Path.cwd().parts
    at = next((n for n in range(len(parts)) if parts[n : n + len(TEMPORARY)] == TEMPORARY), None)
    return work_root(Path() if at is None else Path(*parts[:at])) / name
