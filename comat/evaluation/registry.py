"""The benchmarks that the parameters switch on."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import torch

from comat.errors import say
from comat.evaluation.judging import Judging
from comat.judges.benchmark import Benchmark, evaluator
from comat.judges.clip import Clip
from comat.judges.detector import NounDetector
from comat.judges.later import Later
from comat.judges.vqa import BlipVqa
from comat.params import ClipScoreParams, GenEvalParams, T2ICompBenchParams, VqaParams
from comat.running.device import DTYPES
from comat.samples.formats import dpg, tifa


def benchmarks(judging: Judging) -> Iterator[Benchmark]:
    """One after the other, the main one first; a benchmark's models are loaded when they are first asked.

    None is held here: who drops a benchmark drops its models.
    """
    on, files, device, batch = judging.section, judging.files, judging.device, judging.section.batch_size
    if on.oracle:
        from comat.judges.oracle import Oracle

        yield Oracle()
    if on.t2i_compbench:
        from comat.entities.parse import load_parser
        from comat.evaluation.t2i_compbench import T2ICompBench

        own, parser = on.t2i_compbench, load_parser(judging.spacy_model)
        yield T2ICompBench(_vqa(own, device), _detector(own, device), _clip(own, device), parser, batch)
    if on.tifa:
        from comat.evaluation.tifa import Tifa

        yield Tifa(_file(files.tifa), _vqa(on.tifa, device), batch)
    for name, graph, path in (("dpg", on.dpg, files.dpg), ("dsg", on.dsg, files.dsg)):
        if graph:
            from comat.evaluation.dpg import Dpg

            yield Dpg(_file(path), _vqa(graph, device), batch, name)
    if on.geneval:
        from comat.evaluation.geneval import GenEval

        yield GenEval(_file(files.geneval), _detector(on.geneval, device), _clip(on.geneval, device), batch)
    if on.geneval2:
        from comat.evaluation.geneval2 import GenEval2

        yield GenEval2(_file(files.geneval2), on.geneval2, batch, device, DTYPES[judging.precision])
    for name, clip_score in (("clip_score", on.clip_score), ("hps_v2", on.hps_v2), ("pick_score", on.pick_score)):
        if clip_score:
            from comat.judges.clip_score import ClipScore

            yield ClipScore(_clip(clip_score, device), batch, name)
    if on.vqa_score:
        from comat.judges.vqa_score import VqaScore

        yield VqaScore(on.vqa_score, batch, device, DTYPES[judging.precision])
    if on.captioner:
        from comat.captioners.load import load_teacher
        from comat.evaluation.captioner import CaptionerScore

        taught, dtype = judging.captioner, DTYPES[judging.precision]
        ids = [evaluator(one.captioner_model, one.captioner_revision) for one in taught.captioners]
        yield CaptionerScore(Later(" + ".join(ids), lambda: load_teacher(taught, device, dtype)), batch, device)


def left_out(judging: Judging) -> dict[str, int]:
    """How much of the files of the benchmarks that are on could not be used, and is said."""
    found = {}
    for name, read in (("tifa", tifa.read), ("dpg", dpg.read), ("dsg", dpg.read)):
        if getattr(judging.section, name):
            path = _file(getattr(judging.files, name))
            parts = read(path).left_out
            if parts:
                say(f"{path}: left out " + ", ".join(f"{count} {what}" for what, count in parts.items()))
            found[name] = sum(parts.values())
    return found


def _file(path: str | None) -> Path:
    assert path is not None  # `Params` asks for the file of every benchmark that is on
    return Path(path)


def _vqa(section: VqaParams, device: torch.device) -> Later[BlipVqa]:
    name, revision = section.vqa_model, section.vqa_revision
    return Later(evaluator(name, revision), lambda: BlipVqa(name, revision, device))


def _detector(section: T2ICompBenchParams | GenEvalParams, device: torch.device) -> Later[NounDetector]:
    name, revision = section.detector_model, section.detector_revision
    return Later(evaluator(name, revision), lambda: NounDetector(name, revision, device))


def _clip(section: T2ICompBenchParams | GenEvalParams | ClipScoreParams, device: torch.device) -> Later[Clip]:
    name, revision = section.clip_model, section.clip_revision
    said = section.said if isinstance(section, ClipScoreParams) else ""
    return Later(evaluator(name, revision) + said, lambda: Clip(name, revision, device))
