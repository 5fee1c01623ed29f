"""GenEval: its file, its rules by hand, and the whole on small random models."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from comat.errors import UserError
from comat.evaluation.geneval import TEMPLATES, GenEval, crop, directions, problems
from comat.judges.benchmark import Drawn
from comat.judges.clip import Clip
from comat.judges.detector import Instance, NounDetector
from comat.judges.later import ready
from comat.samples.formats.geneval import COLOURS, Metadata, prompts, read
from comat.segmenters.grounding import Thresholds
from tests.tiny_models import save_clip
from tests.tiny_segmenters import save_grounding_dino_hf

CPU = torch.device("cpu")
COUNTING = {
    "tag": "counting",
    "include": [{"class": "cat", "count": 2}],
    "exclude": [{"class": "cat", "count": 3}],
    "prompt": "a photo of two cats",
}
COLOUR = {
    "tag": "color_attr",
    "include": [{"class": "cat", "count": 1, "color": "black"}, {"class": "dog", "count": 1, "color": "white"}],
    "prompt": "a photo of a black cat and a white dog",
}
POSITION = {
    "tag": "position",
    "include": [{"class": "cat", "count": 1}, {"class": "dog", "count": 1, "position": ["left of", 0]}],
    "prompt": "a photo of a dog left of a cat",
}


def box(x: float, y: float, size: float = 20.0) -> Instance:
    """A square around (x, y)."""
    return Instance(x - size / 2, y - size / 2, x + size / 2, y + size / 2, 0.9)


def write(folder: Path, *lines: object) -> Path:
    path = folder / "geneval.jsonl"
    path.write_text("\n".join(line if isinstance(line, str) else json.dumps(line) for line in lines) + "\n")
    return path


def test_the_metadata_and_prompts_of_a_file(tmp_path: Path) -> None:
    path = write(tmp_path, COUNTING, COLOUR, POSITION)
    found = read(path)[POSITION["prompt"]]
    assert found.nouns == ["cat", "dog"]
    assert found.include[1].position == ("left of", 0)
    assert prompts(path)[0] == ("a photo of two cats", "counting")


@pytest.mark.parametrize(
    ("x", "y", "expected"),
    [
        # Seen from a box at (0, 0); both are 20 px wide and high, so 0.1 * 40 = 4 px along each axis do not count.
        (-100, 0, {"left of"}),
        (100, 0, {"right of"}),
        (0, -100, {"above"}),
        (0, 100, {"below"}),
        (100, 100, {"right of", "below"}),  # 96 of 141 px each
        (100, 60, {"right of"}),  # 96 and 56 of 117 px
        (100, 65, {"right of", "below"}),  # 96 and 61 of 119 px
        (7, 0, set()),  # 3 of 7 px
        (9, 0, {"right of"}),  # 5 of 9 px
        (0, 0, set()),
    ],
)
def test_directions_by_hand(x: float, y: float, expected: set[str]) -> None:
    assert directions(box(x, y), box(0, 0)) == expected


@pytest.mark.parametrize(
    ("metadata", "found", "colours", "wrong"),
    [
        (COUNTING, {"cat": [box(0, 0)] * 2}, [[]], []),
        (COUNTING, {"cat": [box(0, 0)]}, [[]], ["1 cat, expected 2"]),
        (COUNTING, {"cat": [box(0, 0)] * 3}, [[]], ["3 cat, expected fewer than 3"]),
        (COLOUR, {"cat": [box(0, 0)], "dog": [box(9, 9)] * 4}, [["black"], ["white"]], []),
        (COLOUR, {"cat": [box(0, 0)], "dog": [box(9, 9)]}, [["black"], ["brown"]], ["dog is brown, expected white"]),
        (
            COLOUR,
            {"cat": [], "dog": [box(9, 9)]},
            [[], ["black"]],
            ["0 cat, expected 1", "dog is black, expected white"],
        ),
        (POSITION, {"cat": [box(0, 0)], "dog": [box(-50, 0)]}, [[], []], []),
        (POSITION, {"cat": [box(0, 0)], "dog": [box(50, 0)]}, [[], []], ["dog is not left of entry 0"]),
        # Only the surest dog counts.
        (POSITION, {"cat": [box(0, 0)], "dog": [box(50, 0), box(-50, 0)]}, [[], []], ["dog is not left of entry 0"]),
        (
            POSITION,
            {"cat": [], "dog": [box(-50, 0)]},
            [[], []],
            ["0 cat, expected 1", "dog is not left of entry 0"],
        ),
    ],
)
def test_what_is_wrong_with_an_image(metadata: dict, found: dict, colours: list[list[str]], wrong: list[str]) -> None:
    assert problems(Metadata.model_validate(metadata), found, colours) == wrong


def test_a_crop_is_the_box_within_the_image_and_never_empty() -> None:
    image = np.arange(4 * 6 * 3, dtype=np.uint8).reshape(4, 6, 3)
    np.testing.assert_array_equal(crop(image, Instance(1.5, 0.2, 3.9, 2.1, 1.0)), image[0:2, 1:3])
    np.testing.assert_array_equal(crop(image, Instance(-3, -3, 60, 60, 1.0)), image)
    assert crop(image, Instance(2.1, 2.1, 2.2, 2.2, 1.0)).shape == (1, 1, 3)
    assert crop(image, Instance(6.5, 4.5, 9, 9, 1.0)).shape == (1, 1, 3)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", r"geneval\.jsonl, line 2: expected JSON"),
        ("[]", "line 2: row is .*valid dictionary"),
        ({"tag": "x", "include": COUNTING["include"]}, "line 2: prompt is missing; expected prompt, tag, include"),
        (COUNTING | {"include": []}, "line 2: include is .*at least 1 item"),
        (COUNTING | {"include": [{"count": 1}]}, "line 2: include.0.class is missing"),
        (COUNTING | {"include": [{"class": "cat", "count": 0}]}, r"include\.0\.count is '0': .*greater than or equal"),
        (
            COUNTING | {"include": [{"class": "cat", "count": 1, "color": "teal"}]},
            r"include\.0\.color is 'teal'",
        ),
        (
            POSITION | {"include": [{"class": "cat", "count": 1, "position": ["behind", 0]}]},
            r"include\.0\.position\.0 is 'behind': .*'left of'",
        ),
        (
            POSITION | {"include": [{"class": "cat", "count": 1, "position": ["above", 0]}]},
            "include 0 has its position from 0: expected the number of an entry before it",
        ),
        (COUNTING | {"exclude": []}, "line 2: prompt 'a photo of two cats' has other metadata before"),
    ],
)
def test_what_is_wrong_with_a_file(tmp_path: Path, line: object, message: str) -> None:
    with pytest.raises(UserError, match=message):
        read(write(tmp_path, COUNTING, line))


def test_on_random_models(tmp_path: Path) -> None:
    """What is wrong is what the judges themselves see: their boxes counted, their nearest colour named."""
    detector = NounDetector(str(save_grounding_dino_hf(tmp_path / "d")), None, CPU, Thresholds(0.0, 0.0, 0.8))
    clip = Clip(str(save_clip(tmp_path / "c")), None, CPU)
    benchmark = GenEval(write(tmp_path, COUNTING, COLOUR, POSITION), ready(detector), ready(clip), 2)
    pixels = np.random.default_rng(0).integers(0, 256, (48, 60, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "0.png")
    images = [
        Drawn("base", own["tag"], own["prompt"], "geneval", own["tag"], 0, "0.png")
        for own in (COUNTING, COLOUR, POSITION)
    ]
    assert all(benchmark.covers(image) for image in images)
    assert not benchmark.covers(Drawn("base", "x", COUNTING["prompt"], "t2i", "counting", 0, "0.png"))
    scores = list(benchmark.scores(images, tmp_path))
    for score in scores:
        assert score.value == float(score.details["wrong"] == "")
    ((cats,),) = detector.instances([pixels], [["cat"]])
    assert scores[0].details["wrong"] == f"{len(cats)} cat, expected fewer than 3"
    cat, dog = (own[0] for own in detector.instances([pixels], [["cat", "dog"]])[0])
    expected = []
    for noun, found, wanted in (("cat", cat, "black"), ("dog", dog, "white")):
        near = []
        for colour in COLOURS:
            mean = clip.texts([t.format(colour=colour, noun=noun) for t in TEMPLATES]).mean(0)
            near.append((clip.images([crop(pixels, found)])[0] @ mean / mean.norm()).item())
        named = COLOURS[int(np.argmax(near))]
        expected += [] if named == wanted else [f"{noun} is {named}, expected {wanted}"]
    assert scores[1].details["wrong"] == "; ".join(expected)
