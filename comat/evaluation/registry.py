"""The benchmarks that the parameters switch on."""

from __future__ import annotations

from collections.abc import Iterator

from comat.diffusion.backbone import choose_device
from comat.evaluation.benchmark import Benchmark
from comat.params import Params


def benchmarks(params: Params) -> Iterator[Benchmark]:
    """One after the other, the main one first; a benchmark's models are loaded when its turn comes."""
    on, device, batch = params.evaluate, choose_device(params.device), params.evaluate.batch_size
    if on.oracle:
        from comat.evaluation.oracle import Oracle

        yield Oracle()
    if on.clip_score:
        from comat.evaluation.clip import Clip
        from comat.evaluation.clip_score import ClipScore

        yield ClipScore(Clip(on.clip_score.clip_model, on.clip_score.clip_revision, device), batch)
