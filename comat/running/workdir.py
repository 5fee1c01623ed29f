"""Working folders of resumable stages: `${COMAT_WORK_DIR:-.work}/<stage>/<fingerprint>/`, one run at a time.

The fingerprint covers parameters, inputs and code: what a run left behind is taken up by the same run only.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from filelock import FileLock, Timeout
from tqdm import tqdm

from comat.errors import UserError
from comat.models.lock import FILE
from comat.models.sums import sum_of_file
from comat.storage.folders import files_below, work_root
from comat.storage.tables import remove_parts, write_bytes

PACKAGE = Path(__file__).parent.parent
CODE = (PACKAGE, PACKAGE.parent / "stages")


def fingerprint(values: object, inputs: Iterable[Path] = (), code: Iterable[Path] | None = None) -> str:
    """16 hexadecimal digits that depend on JSON-able values, on the contents of files and folders, and on the code.

    `code` defaults to every module of the package and of the stages beside it.

    Raises:
        UserError: if there is no such file or folder.
    """
    digest = hashlib.sha256(json.dumps(values, sort_keys=True, default=str).encode())
    files: list[Path] = []
    modules = (path for folder in CODE for path in sorted(folder.rglob("*.py")))
    for root in [*inputs, *(modules if code is None else code)]:
        if not root.is_dir() and not root.is_file():
            raise UserError(
                f"{root}: no such file or folder; run the stage that makes it (`dvc repro`), or correct its name"
            )
        files += files_below(root) if root.is_dir() else [root]
    total = sum(file.stat().st_size for file in files)
    with tqdm(total=total, desc="hashing inputs", unit="B", unit_scale=True, leave=False) as progress:
        for file in files:
            digest.update(file.name.encode() + bytes.fromhex(sum_of_file(file, progress.update)))
    return digest.hexdigest()[:16]


def sum_of(place: Path) -> str:
    """What the content of a file or folder is known by, read once as long as it stays as it is."""
    return fingerprint("", [place], code=())


@contextlib.contextmanager
def work_directory(stage: str, print_: str) -> Iterator[Path]:
    """The working folder of one stage, locked; removed when the block ends well, kept when it does not.

    Raises:
        UserError: if another run holds it; says which process.
    """
    root = work_root() / stage
    folder = root / print_
    folder.mkdir(parents=True, exist_ok=True)
    lock, holder = FileLock(root / f"{print_}.lock"), root / f"{print_}.pid"
    try:
        lock.acquire(timeout=0)
    except Timeout:
        who = holder.read_text() if holder.exists() else "unknown"
        raise UserError(
            f"{folder}: another run of stage {stage} holds this folder (process {who}); wait for it"
        ) from None
    try:
        write_bytes(holder, str(os.getpid()).encode())
        remove_parts(folder)
        yield folder
        shutil.rmtree(folder)
        holder.unlink(missing_ok=True)
    finally:
        lock.release()


def stage_directory(
    stage: str, values: Mapping[str, object], models: Path, inputs: Iterable[Path]
) -> contextlib.AbstractContextManager[Path]:
    """The working folder of a stage of the pipeline: of the values of its parameters, its models, inputs and code.

    Of the models the lock in the folder `models` stands for their files, which `pinned` has compared with it.
    """
    return work_directory(stage, fingerprint(values, [models / FILE, *inputs]))
