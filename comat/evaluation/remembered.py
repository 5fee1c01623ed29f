"""What judges have said before, kept by what they judge by and what they judged: nothing is judged twice.

A judge's folder holds one file for every run that added to it, a score on each line, so that runs side by side write
past each other. A line that a kill or a bad disk has torn is no longer what its checksum says, and is judged again.
The whole may be removed at any time: it costs the judging, and changes no number.
"""

from __future__ import annotations

import hashlib
import json
import os
import uuid
import zlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import IO, Self

from pydantic import TypeAdapter, ValidationError
from safetensors import SafetensorError, safe_open
from torch import Tensor

from comat.judges.benchmark import Score
from comat.storage.memory import memory_folder
from comat.storage.tables import write_json, write_safetensors

_SCORE = TypeAdapter(Score)


def store_folder() -> Path:
    """`$COMAT_JUDGED_DIR`, or `judged` in the memory of the project."""
    own = os.environ.get("COMAT_JUDGED_DIR")
    return Path(own) if own else memory_folder("judged")


def judge_folder(name: str, judge: Mapping[str, object]) -> Path:
    """The folder of the judge that `judge` describes, which is written there for those who look."""
    text = json.dumps(judge, sort_keys=True, ensure_ascii=False)
    folder = store_folder() / name / hashlib.sha256(text.encode()).hexdigest()[:32]
    if not (folder / "judge.json").is_file():
        write_json(folder / "judge.json", judge)
    return folder


class Scores:
    """The scores in a judge's folder by their keys; what is added is there for the next run, even if this is killed."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._known: dict[str, Score] = {}
        self._file: IO[bytes] | None = None
        for path in sorted(folder.glob("*.jsonl")):
            self._known |= dict(_lines(path.read_bytes()))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        if self._file:
            self._file.close()

    def __contains__(self, key: str) -> bool:
        return key in self._known

    def __getitem__(self, key: str) -> Score:
        return self._known[key]

    def add(self, scores: Iterable[tuple[str, Score]]) -> None:
        for key, score in scores:
            self._known[key] = score
            if self._file is None:
                self._file = (self._folder / f"{uuid.uuid4().hex}.jsonl").open("xb")
            self._file.write(_line(key, score))
        if self._file:
            self._file.flush()


def _line(key: str, score: Score) -> bytes:
    text = key.encode() + b" " + _SCORE.dump_json(score)
    return b"%08x %s\n" % (zlib.crc32(text), text)


def _lines(data: bytes) -> Iterable[tuple[str, Score]]:
    """The scores of the lines that are whole."""
    for line in data.splitlines():
        check, _, text = line.partition(b" ")
        if check != b"%08x" % zlib.crc32(text):
            continue
        key, _, value = text.partition(b" ")
        try:
            yield key.decode(), _SCORE.validate_json(value)
        except (ValidationError, UnicodeDecodeError):  # of an older layout
            continue


class Features:
    """The features in a judge's folder: for each batch of images (N, D) float32, and how many images had none, and why.

    One file a batch, each whole or not at all.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def get(self, key: str) -> tuple[Tensor, dict[str, int]] | None:
        path = self._folder / f"{key}.safetensors"
        try:
            with safe_open(path, "pt") as file:
                found, said = file.get_tensor("features"), file.metadata()["said"]
        except (OSError, SafetensorError):
            return None
        check, _, skipped = said.partition(" ")
        return (found, json.loads(skipped)) if check == _checksum(found) else None

    def add(self, key: str, features: Tensor, skipped: Mapping[str, int]) -> None:
        said = f"{_checksum(features)} {json.dumps(dict(skipped))}"
        write_safetensors(self._folder / f"{key}.safetensors", {"features": features}, {"said": said})


def _checksum(features: Tensor) -> str:
    return f"{zlib.crc32(features.contiguous().numpy().tobytes()):08x}"
