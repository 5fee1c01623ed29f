"""What benchmarks judge by."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from comat.params import BenchmarkFiles, CaptionerParams, EvaluateParams


@dataclass(frozen=True)
class Judging:
    """Which benchmarks judge, by which models and files, and where. A benchmark that is on has its file."""

    section: EvaluateParams
    files: BenchmarkFiles
    spacy_model: str  # finds the nouns that T2I-CompBench asks about
    device: torch.device
    seed: int  # of clean renders, of the choice among photographs and of intervals
    resolution: int  # px, of the clean renders: that of the images
    captioner: CaptionerParams  # for `evaluate.captioner`
    precision: str  # of the captioner
