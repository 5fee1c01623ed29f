"""The published corpora: downloaded, or taken from a folder of the user's; the same files either way."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

from pydantic import Field
from ruamel.yaml import YAML
from tqdm import tqdm

from comat.corpora.download import Patience, download, session
from comat.errors import UserError
from comat.params import Section
from comat.storage.tables import sha256

LIST = Path(__file__).with_name("published.yaml")


class PublishedFile(Section):
    """What a file must be."""

    bytes: Annotated[int, Field(ge=1)]
    sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")]


class Published(Section):
    """A corpus as its authors publish it, at one commit."""

    folder: str  # under data/corpora, and under corpora.source
    url: str  # of the folder upstream
    licence: str
    files: dict[str, PublishedFile]  # by path in that folder


def published(path: Path = LIST) -> dict[str, Published]:
    """Name → corpus, of all that can be fetched."""
    values = YAML(typ="safe").load(path.read_text(encoding="utf-8"))
    return {name: Published.model_validate(value) for name, value in values.items()}


def fetch(corpora: Sequence[Published], source: Path | None, out: Path, patience: Patience | None = None) -> dict:
    """Put the files of `corpora` under `out` and return what `manifest.json` says of them.

    Files that are there already and right are left alone, so that an interrupted run goes on.

    Raises:
        UserError: if a file is missing from `source` or is another one, or cannot be downloaded.
    """
    patience = patience or Patience()
    files = [(corpus, name) for corpus in corpora for name in corpus.files]
    with session(patience) as http:
        for corpus, name in tqdm(files, desc="corpora"):
            wanted, target = corpus.files[name], out / corpus.folder / name
            if target.is_file() and sha256(target) == wanted.sha256:
                continue
            if source:
                _take(source / corpus.folder / name, target, wanted)
            else:
                download(http, f"{corpus.url}/{name}", target, wanted.bytes, wanted.sha256, patience)
    return {corpus.folder: corpus.model_dump(exclude={"folder"}) for corpus in corpora}


def _take(file: Path, target: Path, wanted: PublishedFile) -> None:
    """Copy a file of the user's, if it is the published one."""
    if not file.is_file():
        raise UserError(f"{file}: no such file; corpora.source must hold the files that docs/data.md lists")
    if (found := sha256(file)) != wanted.sha256:
        raise UserError(
            f"{file}: {file.stat().st_size} bytes with sha256 {found}: not the published file, which has "
            f"{wanted.bytes} bytes with {wanted.sha256}; other commit, or line ends changed by git (core.autocrlf)?"
        )
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(file, target)
