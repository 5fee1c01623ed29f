"""The benchmarks that the parameters switch on."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import torch

from comat.judges.benchmark import Benchmark, evaluator
from comat.judges.clip import Clip
from comat.judges.detector import NounDetector
from comat.judges.vqa import BlipVqa
from comat.params import ClipScoreParams, GenEvalParams, Params, T2ICompBenchParams, VqaParams
from comat.running.device import DTYPES, choose_device


def benchmarks(params: Params) -> Iterator[Benchmark]:
    """One after the other, the main one first; a benchmark's models are loaded when its turn comes."""
    on, device, batch = params.evaluate, choose_device(params.device), params.evaluate.batch_size
    files = params.samples.benchmarks
    if on.oracle:
        from comat.judges.oracle import Oracle

        yield Oracle()
    if on.t2i_compbench:
        from comat.entities.parse import load_parser
        from comat.evaluation.t2i_compbench import T2ICompBench

        judges = (judge(on.t2i_compbench, device) for judge in (_vqa, _detector, _clip))
        yield T2ICompBench(*judges, load_parser(params.entities.spacy_model), batch)
    if on.tifa:
        from comat.evaluation.tifa import Tifa

        yield Tifa(Path(files.tifa), _vqa(on.tifa, device), batch)
    if on.dpg:
        from comat.evaluation.dpg import Dpg

        yield Dpg(Path(files.dpg), _vqa(on.dpg, device), batch)
    if on.geneval:
        from comat.evaluation.geneval import GenEval

        yield GenEval(Path(files.geneval), _detector(on.geneval, device), _clip(on.geneval, device))
    if on.clip_score:
        from comat.judges.clip_score import ClipScore

        yield ClipScore(_clip(on.clip_score, device), batch)
    if on.captioner:
        from comat.captioners import load_captioner
        from comat.evaluation.captioner import CaptionerScore

        kind, model, revision = params.captioner, params.captioner_model, params.captioner_revision
        own = load_captioner(kind, model, revision, params.caption_prefix, device, DTYPES[params.precision])
        yield CaptionerScore(own, evaluator(model, revision), batch, device)


def _vqa(section: VqaParams, device: torch.device) -> BlipVqa:
    return BlipVqa(section.vqa_model, section.vqa_revision, device)


def _detector(section: T2ICompBenchParams | GenEvalParams, device: torch.device) -> NounDetector:
    return NounDetector(section.detector_model, section.detector_revision, device)


def _clip(section: T2ICompBenchParams | GenEvalParams | ClipScoreParams, device: torch.device) -> Clip:
    return Clip(section.clip_model, section.clip_revision, device)
