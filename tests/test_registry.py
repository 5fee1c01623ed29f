"""The parameters switch benchmarks on, with the models and files that they name."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from comat.evaluation.registry import left_out
from comat.evaluation.scores import score
from comat.judges.benchmark import Drawn
from comat.params import Params, load
from comat.samples.prompt_files import benchmark_prompts
from tests.conftest import ROOT, judging_of
from tests.test_geneval import COUNTING
from tests.test_geneval2 import BICYCLES
from tests.test_question_benchmarks import HEADER, LINES, QUESTION
from tests.tiny_judges import save_blip_vqa
from tests.tiny_segmenters import save_grounding_dino_hf
from tests.tiny_vlms import save_qwen3_vl


@pytest.fixture
def params(tmp_path: Path, tiny: Path, make_params: Callable[..., Params]) -> Params:
    """All benchmarks on but the oracle, which knows its own world only."""
    vqa = {"vqa_model": str(save_blip_vqa(tmp_path / "vqa")), "vqa_revision": None}
    detector = {"detector_model": str(save_grounding_dino_hf(tmp_path / "detector")), "detector_revision": None}
    clip = {"clip_model": str(tiny / "clip"), "clip_revision": None}
    (tmp_path / "tifa.json").write_text(json.dumps([QUESTION]))
    (tmp_path / "dpg.csv").write_text(HEADER + LINES[4] + "\n")
    (tmp_path / "dsg.csv").write_text(HEADER + LINES[4].replace("a dog", "a duck") + "\n")
    (tmp_path / "geneval.jsonl").write_text(json.dumps(COUNTING) + "\n")
    (tmp_path / "geneval2.jsonl").write_text(json.dumps(BICYCLES) + "\n")
    files = {"tifa": "tifa.json", "dpg": "dpg.csv", "dsg": "dsg.csv", "geneval": "geneval.jsonl"}
    files |= {"geneval2": "geneval2.jsonl"}
    values = load(ROOT / "params.yaml")
    samples = values.samples.model_dump()
    samples["benchmarks"] |= {name: str(tmp_path / file) for name, file in files.items()}
    evaluate = values.evaluate.model_dump() | {
        "oracle": False,
        "t2i_compbench": vqa | detector | clip,
        "tifa": vqa,
        "dpg": vqa,
        "dsg": vqa,
        "geneval": detector | clip,
        "geneval2": {"vqa_model": str(save_qwen3_vl(tmp_path / "vlm")), "vqa_revision": None},
        "clip_score": clip,
        "hps_v2": clip,
        "pick_score": clip,
        "frechet": None,
    }
    return make_params(samples=samples, evaluate=evaluate)


def test_every_benchmark_scores_what_is_its_own(params: Params, tmp_path: Path) -> None:
    """The prompts drawn for the files, found again by their texts, and one of T2I-CompBench."""
    rows = benchmark_prompts(params.samples.benchmarks, params.seed)
    rows.append({"id": "t", "text": "a red ball", "source": "t2i", "category": "color"})
    images = []
    for row in rows:
        path = tmp_path / f"{row['id']}.png"
        Image.fromarray(np.random.default_rng(0).integers(0, 256, (48, 60, 3), dtype=np.uint8)).save(path)
        images.append(Drawn("base", row["id"], row["text"], row["source"], row["category"], 0, str(path)))
    scores, evaluators = score(judging_of(params), images)
    found = [(row["benchmark"], row["text"]) for row in scores]
    assert found[:6] == [
        ("t2i_compbench", "a red ball"),
        ("tifa", "two red balls"),
        ("dpg", "a dog"),
        ("dsg", "a duck"),
        ("geneval", "a photo of two cats"),
        ("geneval2", BICYCLES["prompt"]),
    ]
    assert [name for name, _ in found[6:]] == ["clip_score"] * 6 + ["hps_v2"] * 6 + ["pick_score"] * 6
    assert [row["category"] for row in scores[:6]] == ["color", "tifa", "dpg", "dsg", "counting", "atoms 03"]
    assert left_out(judging_of(params)) == {"tifa": 0, "dpg": 0, "dsg": 0}
    assert {name: set(models) for name, models in evaluators.items()} == {
        "t2i_compbench": {"vqa", "detector", "clip", "parser"},
        "tifa": {"vqa"},
        "dpg": {"vqa"},
        "dsg": {"vqa"},
        "geneval": {"detector", "clip"},
        "geneval2": {"vqa"},
        "clip_score": {"clip"},
        "hps_v2": {"clip"},
        "pick_score": {"clip"},
    }
