"""Peers beside a run: their results, and what of them is of other images or judges than the run's."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from comat.errors import UserError, clean
from comat.params import DRAWN_BY, DRAWN_BY_THE_RUN, DrawingParams, load
from comat.reporting.results import REMEDY, read_peer_metrics
from comat.running.workdir import sum_of
from comat.storage.json_files import read_json
from comat.storage.tables import IMAGE_INDEX, read_table, sha256

FILES = {
    "entities": "entities/entities.parquet",
    "lora_file": "train/lora/pytorch_lora_weights.safetensors",
    "warmup": "warmup",
}
"""What a method's record has of the run's files and folders, and where they are."""
AGAIN = "run `comat evaluate` for it again"


def read_peers(run: Path, base: Path, peers: Path) -> tuple[dict[str, dict], list[str]]:
    """The metrics of the peers in a folder by their names, and a line for each that does not stand on equal ground.

    Args:
        run: where the stage evaluate wrote, a folder of the run's data; beside those stands `params.yaml`.
        base: the folder of the base's samples.
    """
    found = {file.parent.name: read_peer_metrics(file) for file in sorted(peers.glob("*/metrics.json"))}
    records = {name: _record(peers / name) for name in found}
    values = run.parent.parent / "params.yaml"
    notes: list[str] = []
    try:
        params = load(values) if any(records.values()) and values.is_file() else None
    except UserError as error:
        params, notes = None, [f"{error}; what the peers were drawn by is not compared with it"]
    for name, record in records.items():
        drawn = list(_drawn(run.parent, params, record))
        wrong = [*_wrong(run, base, peers / name), *drawn]
        if wrong:
            notes.append(f"{clean(name, 60)}: {' and '.join(wrong)}; {'remove its folder and ' * bool(drawn)}{AGAIN}")
    return found, notes


def _record(peer: Path) -> dict[str, object]:
    """What a peer was drawn by; nothing where that is not known, as of images drawn elsewhere."""
    path = peer / "peer.json"
    if not path.is_file():
        return {}
    record = read_json(path, dict[str, object], "the record of a peer", f"remove its folder and {AGAIN}")
    return record if record.get("model") else {}


def _drawn(data: Path, params: DrawingParams | None, record: dict[str, object]) -> Iterator[str]:
    """What else than the run a peer was drawn by."""
    if params and record:
        own = {key: getattr(params, key) for key in DRAWN_BY}
        if "method" in record:
            own |= {"model": params.base_model, **{key: getattr(params, key) for key in DRAWN_BY_THE_RUN}}
        other = [key for key in own if record.get(key, own[key]) != own[key]]
        if other:
            said = (f"{key} {clean(record[key], 60)}, not {clean(own[key], 60)}" for key in other)
            yield f"drawn with {' and '.join(said)}"
    if "method" in record:
        files = {key: data / path for key, path in FILES.items() if key != "lora_file" or record.get("lora")}
        unknown = [key for key in (*DRAWN_BY_THE_RUN, *files) if key not in record]
        if unknown:
            yield f"drawn with unknown {', '.join(unknown)}"
        there = [key for key, path in files.items() if key in record and path.exists()]
        yield from (f"drawn with another {FILES[key]}" for key in there if record[key] != _sum(files[key]))


def _sum(path: Path) -> str:
    return sha256(path) if path.is_file() else sum_of(path)


def _wrong(run: Path, base: Path, peer: Path) -> Iterator[str]:
    indices = [folder / "index.parquet" for folder in (peer, base)]
    if all(index.is_file() for index in indices):
        own, wanted = ({(r["prompt_id"], r["seed"]) for r in read_table(i, IMAGE_INDEX)} for i in indices)
        if own != wanted:
            yield f"of {len(own & wanted)} of the run's {len(wanted)} images" + (", and of others" * bool(own - wanted))
    said = [folder / "evaluators.json" for folder in (peer, run)]
    if all(file.is_file() for file in said):
        kind: type[dict[str, dict[str, str]]] = dict[str, dict[str, str]]
        theirs, ours = (read_json(file, kind, "a list of judges", REMEDY) for file in said)
        other = [name for name in theirs if name in ours and theirs[name] != ours[name]]
        if other:
            yield f"judged by others in {', '.join(other)}"
    asked = [folder / "judging.json" for folder in (peer, run)]
    if all(file.is_file() for file in asked):
        how: type[dict[str, dict[str, object]]] = dict[str, dict[str, object]]
        before, now = (read_json(file, how, "how judges were asked", REMEDY) for file in asked)
        for name in (name for name in before if name in now):
            keys = sorted(key for key in now[name] if before[name].get(key) != now[name][key])
            if keys:
                yield f"judged with other {' and '.join(keys)} in {name}"
