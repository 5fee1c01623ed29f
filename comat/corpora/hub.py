"""Prompts of a data set on the hub: its Parquet files, at one revision."""

from __future__ import annotations

from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import Path

from huggingface_hub import snapshot_download

from comat.corpora.lists import parquet_texts
from comat.errors import UserError
from comat.models.loading import loaded
from comat.params import PromptList
from comat.storage.folders import files_below
from comat.storage.prompt_text import Prompt, whole


def read_hub(source: PromptList) -> Iterator[Prompt]:
    """The column that the parameters name, of all Parquet files of the revision but those left out.

    The category of a prompt is the name of its list: the files of a data set are named by number.
    """

    def download() -> str:
        return snapshot_download(
            source.path,
            repo_type="dataset",
            revision=source.revision,
            allow_patterns=["*.parquet"],
            ignore_patterns=source.leave_out,
        )

    folder = Path(loaded(source.path, "the Parquet files of this data set", download))
    files = [file for file in files_below(folder, hidden=False) if file.suffix == ".parquet"]
    names = [file.relative_to(folder).as_posix() for file in files]
    left = [f for f, name in zip(files, names, strict=True) if not any(fnmatch(name, p) for p in source.leave_out)]
    if not left:
        raise UserError(
            f"data set {source.path!r}: no Parquet file at revision {source.revision!r}; expected a commit with some, "
            "or refs/convert/parquet, where the hub keeps its own conversion"
        )
    for file in left:
        for text in parquet_texts(file, source.column):
            yield Prompt(whole(text, f"{file}"), source.name)
