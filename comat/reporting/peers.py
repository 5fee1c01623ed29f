"""Peers beside a run: their results, and what of them is of other images or judges than the run's."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from comat.errors import clean
from comat.reporting.results import REMEDY, read_peer_metrics
from comat.storage.json_files import read_json
from comat.storage.tables import IMAGE_INDEX, read_table


def read_peers(run: Path, base: Path, peers: Path) -> tuple[dict[str, dict], list[str]]:
    """The metrics of the peers in a folder by their names, and a line for each that does not stand on equal ground.

    Args:
        run: where the stage evaluate wrote.
        base: the folder of the base's samples.
    """
    found, notes = {}, []
    for file in sorted(peers.glob("*/metrics.json")):
        name = file.parent.name
        found[name] = read_peer_metrics(file)
        wrong = list(_wrong(run, base, file.parent))
        if wrong:
            notes.append(f"{clean(name, 60)}: {' and '.join(wrong)}; run `comat evaluate` for it again")
    return found, notes


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
