"""Whether parameters and results are those of one run, which `dvc.lock` records stage by stage."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from comat.errors import UserError, clean
from comat.params import Params
from comat.storage.yaml_files import read_bounded, shown

NEEDED = ("train", "samples", "evaluate")
"""Without their record nothing tells what the result was made by."""
STAGES = (
    *NEEDED,
    "corpora",
    "models",
    "prompts",
    "entities",
    "image_latents",
    "caption_entities",
    "prompt_embeddings",
    "warmup_images",
    "warmup",
    "reference_latents",
    "base_samples",
)
"""Those of dvc.yaml: a lock may hold one of an older version as well, which `dvc repro` leaves as it is."""
_FILE = "params.yaml"  # as dvc.yaml calls it


class _File(BaseModel):
    path: str
    md5: str | None = None


class _Stage(BaseModel):
    params: dict[str, dict[str, Any]] = {}
    deps: list[_File] = []
    outs: list[_File] = []


class _Lock(BaseModel):
    stages: dict[str, _Stage] = {}


class _Nothing:
    def __repr__(self) -> str:
        return "nothing"


def check_recorded(
    params: Params, values: Path, lock: Path, stages: Sequence[str] = STAGES, keys: Collection[str] | None = None
) -> None:
    """See that stages of the finished run were made by these parameters, however they are spelled (1 is 1.0).

    Args:
        values: the file that `params` were read from.
        stages: which of them; by default all.
        keys: of which parameters, without sections; by default of all that a stage depends on.

    Raises:
        UserError: naming the first key that differs, or if the lock does not record the run.
    """
    recorded = {name: stage.params.get(_FILE, {}) for name, stage in _read(lock).items()}
    for stage in NEEDED:
        if stage in stages and not recorded.get(stage):
            raise UserError(
                f"{lock}: expected the parameters that the stage {stage} was run with, found none; run `dvc repro`"
            )
    for stage in stages:
        asked = {key: value for key, value in recorded.get(stage, {}).items() if keys is None or key in keys}
        for key, was, now in _differences(params, asked):
            raise UserError(
                f"{values}: {clean(key, 200)} is {shown(now)}, but the stage {stage} was run with {shown(was)} "
                f"({lock}); run `dvc repro`, or put the value back"
            )


def check_results(data: Path, lock: Path) -> None:
    """See that the results in `data` are those of the lock, and of one run: what was evaluated is what was trained.

    Of what is a folder the lock alone is compared with itself.

    Raises:
        UserError: naming the first that is not.
    """
    check_inputs(lock, NEEDED)
    stages = _read(lock)
    for name in NEEDED:
        for out in stages.get(name, _Stage()).outs:
            path = data / Path(out.path).relative_to("data") if out.path.startswith("data/") else Path(out.path)
            if out.md5 and path.is_file() and hashlib.md5(path.read_bytes()).hexdigest() != out.md5:
                raise UserError(
                    f"{path}: not what the stage {name} made by {lock}; run `dvc checkout` for that, or `dvc repro`"
                )


def check_inputs(lock: Path, names: Sequence[str]) -> None:
    """See that stages were run with what the stages before them have made last.

    Raises:
        UserError: naming the first that was not.
    """
    stages = _read(lock)
    made = {out.path: (name, out.md5) for name, stage in stages.items() for out in stage.outs}
    for name in names:
        for dep in stages.get(name, _Stage()).deps:
            maker, md5 = made.get(dep.path, ("", None))
            if md5 and dep.md5 and md5 != dep.md5:
                raise UserError(
                    f"{lock}: the stage {name} was run with another {dep.path} than the stage {maker} has made since; "
                    "run `dvc repro`"
                )


def _read(lock: Path) -> dict[str, _Stage]:
    """The stages by their names."""
    try:
        found = _Lock.model_validate(read_bounded(str(lock), lock.read_text(encoding="utf-8")))
    except ValidationError as error:
        problem = error.errors(include_url=False)[0]
        place = clean(".".join(map(str, problem["loc"])), 200)
        raise UserError(f"{lock}: not as DVC writes it: {place}: {problem['msg']}; run `dvc repro`") from None
    return found.stages


def _differences(params: Params, recorded: Mapping[str, Any]) -> Iterator[tuple[str, object, object]]:
    """(key, value in the lock, value now) of what differs once both are read as parameters."""
    now = params.model_dump()
    before = params.model_dump()
    for key, value in recorded.items():
        _put(before, key.split("."), value)
    # Values of another version, or that need others which differ as well, are compared as they stand.
    with contextlib.suppress(ValidationError):
        before = Params.model_validate(before).model_dump()
    for key in recorded:
        yield from _apart(_at(before, key.split(".")), _at(now, key.split(".")), key)


def _put(values: dict[str, Any], place: list[str], value: object) -> None:
    *sections, name = place
    for section in sections:
        if not isinstance(values.get(section), dict):
            values[section] = {}
        values = values[section]
    values[name] = value


def _at(values: object, place: list[str]) -> object:
    for name in place:
        values = values.get(name, _Nothing()) if isinstance(values, dict) else _Nothing()
    return values


def _apart(was: object, now: object, key: str) -> Iterator[tuple[str, object, object]]:
    """The single values that differ, those of sections and of lists of one length each by its own key."""
    if isinstance(was, dict) and isinstance(now, dict):
        for name in dict.fromkeys((*was, *now)):
            yield from _apart(was.get(name, _Nothing()), now.get(name, _Nothing()), f"{key}.{name}")
    elif isinstance(was, list) and isinstance(now, list) and len(was) == len(now):
        for number, (one, other) in enumerate(zip(was, now, strict=True)):
            yield from _apart(one, other, f"{key}.{number}")
    elif was != now or isinstance(was, bool) != isinstance(now, bool):
        yield key, was, now
