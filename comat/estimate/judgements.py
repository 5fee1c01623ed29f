"""How much the stage `evaluate` judges, at most: what of it was judged before is remembered."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from itertools import product
from pathlib import Path

from spacy.language import Language

from comat.estimate.judges import (
    ASKED,
    CHOICES,
    COMPARED,
    DETECTIONS,
    FEATURED,
    IMAGES,
    QUESTIONS,
    READ,
    TEXTS,
)
from comat.estimate.seeing import NOUNS
from comat.evaluation.geneval import TEMPLATES
from comat.evaluation.t2i_compbench import ATTRIBUTES, CATEGORIES, Plan, plan_of
from comat.judges.oracle import in_world
from comat.judges.spatial import Relation
from comat.params import EvaluateParams, SamplesParams
from comat.samples.formats import dpg, geneval, geneval2, tifa
from comat.samples.formats.geneval import COLOURS

MODELS = 2
"""Base and tuned."""
Judgements = dict[str, Counter[str]]
"""Benchmark → how many of each."""
Plans = Mapping[tuple[str, str], Plan]
"""Category and text of a prompt → what T2I-CompBench asks of its images."""


def judgements(
    section: EvaluateParams,
    samples: SamplesParams,
    rows: Sequence[dict],
    photographs: int | None,
    parse: Language | None,
) -> Judgements:
    """Of every benchmark that is on, for the drawn prompts, rows of `PROMPTS`.

    Args:
        photographs: of FID; None if not known.
        parse: finds the nouns that T2I-CompBench asks about; without it as many are taken as typical.

    Raises:
        UserError: if a benchmark's file cannot be read.
    """
    found: Judgements = {}
    plans = _plans(rows, parse) if section.t2i_compbench else {}
    for name, of_image in _benchmarks(section, samples, plans).items():
        total: Counter[str] = Counter()
        for row in rows:
            own = of_image(row)
            if own:
                seeds = 1 if name == "fid" else samples.seeds_of(row["source"])  # FID looks at the first image
                total.update({what: MODELS * seeds * count for what, count in {IMAGES: 1, **own}.items()})
        total[TEXTS] = _texts(name, rows, samples, plans) if total[COMPARED] else 0
        total[FEATURED] += {"frechet": total[IMAGES] // MODELS, "fid": photographs or 0}.get(name, 0)
        found[name] = +total
    return found


def _benchmarks(
    section: EvaluateParams, samples: SamplesParams, plans: Plans
) -> dict[str, Callable[[dict], Mapping[str, int]]]:
    """Benchmarks that ask a model → what is asked of an image of a prompt; nothing where it is not covered."""
    files = samples.benchmarks
    every = {
        "t2i_compbench": lambda: lambda row: _planned(plans.get((row["category"], row["text"]), Plan())),
        "tifa": lambda: _of_file("tifa", _tifa(files.tifa)),
        "dpg": lambda: _of_file("dpg", _graph(files.dpg)),
        "dsg": lambda: _of_file("dsg", _graph(files.dsg)),
        "geneval": lambda: _of_file("geneval", _geneval(files.geneval)),
        "geneval2": lambda: _of_file("geneval2", _geneval2(files.geneval2)),
        "clip_score": lambda: lambda row: {COMPARED: 1},
        "hps_v2": lambda: lambda row: {COMPARED: 1},
        "pick_score": lambda: lambda row: {COMPARED: 1},
        "vqa_score": lambda: lambda row: {READ: 1},
        "captioner": lambda: lambda row: {READ: 1},
        "frechet": lambda: lambda row: {FEATURED: 1} if in_world(row["text"]) else {},
        "fid": lambda: lambda row: {FEATURED: 1} if row["source"] == "coco" else {},
    }
    return {name: make() for name, make in every.items() if getattr(section, name)}


def _of_file(source: str, asked: Mapping[str, Mapping[str, int]]) -> Callable[[dict], Mapping[str, int]]:
    return lambda row: asked.get(row["text"], {}) if row["source"] == source else {}


def _tifa(path: str | None) -> dict[str, Mapping[str, int]]:
    return {
        text: {ASKED: 1, QUESTIONS: len(own), CHOICES: sum(len(question.choices) for question in own)}
        for text, own in tifa.read(Path(path or "")).by_prompt.items()
    }


def _graph(path: str | None) -> dict[str, Mapping[str, int]]:
    return {text: {ASKED: 1, QUESTIONS: len(own)} for text, own in dpg.read(Path(path or "")).by_prompt.items()}


def _geneval(path: str | None) -> dict[str, Mapping[str, int]]:
    """Of colours as many crops as are asked for are compared, if so many are found."""
    return {
        text: {DETECTIONS: 1, COMPARED: sum(wanted.count for wanted in own.include if wanted.color)}
        for text, own in geneval.read(Path(path or "")).items()
    }


def _geneval2(path: str | None) -> dict[str, Mapping[str, int]]:
    return {text: {QUESTIONS: len(own.vqa_list)} for text, own in geneval2.read(Path(path or "")).items()}


def _plans(rows: Sequence[dict], parse: Language | None) -> Plans:
    keys = {(row["category"], row["text"]): None for row in rows if row["category"] in CATEGORIES}
    return {key: plan_of(key[0], parse(key[1])) if parse else _typical(*key) for key in keys}


def _typical(category: str, text: str) -> Plan:
    """What is asked of a prompt that nothing parses: a complex one's adjectives stay in its caption."""
    return Plan(
        ("",) * NOUNS if category in (*ATTRIBUTES, "complex") else (),
        Relation("near", "", "", (0, 0)) if category in ("spatial", "complex") else None,
        text if category in ("non_spatial", "complex") else None,
    )


def _planned(plan: Plan) -> Mapping[str, int]:
    asked = {ASKED: 1, QUESTIONS: len(plan.questions)} if plan.questions else {}
    return asked | ({DETECTIONS: 1} if plan.relation else {}) | ({COMPARED: 1} if plan.caption else {})


def _texts(name: str, rows: Sequence[dict], samples: SamplesParams, plans: Plans) -> int:
    """How many texts CLIP encodes: each once, however many prompts and images it is compared for."""
    if name == "geneval":
        metadata = geneval.read(Path(samples.benchmarks.geneval or "")).values()
        nouns = {wanted.noun for own in metadata for wanted in own.include if wanted.color}
        asked = product(TEMPLATES, COLOURS, nouns)  # one of the templates is the same for all nouns
        return len({template.format(colour=colour, noun=noun) for template, colour, noun in asked})
    if name == "t2i_compbench":
        return len({plan.caption for plan in plans.values() if plan.caption})
    return len({row["text"] for row in rows})
