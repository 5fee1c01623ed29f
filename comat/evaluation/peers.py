"""Peers, drawn and judged by the same benchmarks as the base."""

from __future__ import annotations

from pathlib import Path

from comat.evaluation.judging import Judging
from comat.evaluation.run import judge
from comat.evaluation.scores import drawn
from comat.evaluation.summary import means
from comat.params import DrawingParams
from comat.running.distributed import ALONE, Processes
from comat.samples.peers import Peer, draw_peer


def evaluate_peer(
    drawing: DrawingParams,
    batch_size: int,
    judging: Judging,
    peer: Peer,
    base: Path,
    out: Path,
    processes: Processes = ALONE,
) -> dict:
    """Draw what `out` lacks of the prompts and seeds of the folder `base`, and write what the benchmarks say of it.

    `out` holds what `draw_peer` writes, `scores.parquet`, `evaluators.json`, `judging.json` and `metrics.json`,
    which is returned.

    Raises:
        UserError: as `draw_peer`, or if a benchmark covers none of the images.
    """
    draw_peer(drawing, batch_size, peer, base, out, processes)
    return judge(judging, drawn(out), means, lambda found: {"value": found[peer.name]}, out, processes)
