"""The arithmetic of the evaluation, by hand."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from comat.evaluation.frechet import frechet_distance
from comat.evaluation.oracle import oracle_scores
from comat.evaluation.run import paired
from comat.evaluation.statistics import paired_gain
from comat.images import read_rgb
from comat.reporting.grid import pair_grid
from comat.reporting.table import result_table
from comat.shapes.captions import parse_prompt
from comat.shapes.render import render
from comat.shapes.scenes import Object, Scene


def test_gain_of_equal_pairs_has_no_width() -> None:
    """Every tuned image is right and every base image wrong: gain 1, whatever is resampled."""
    assert paired_gain([0, 0, 0], [1, 1, 1], ["a", "a", "b"], 100, 0) == (1.0, 1.0, 1.0)


def test_prompts_are_resampled_not_images() -> None:
    """Two prompts of two images: gains 1 and 0. Resampled means are 0, 1/2 or 1; resampled images would give 1/4."""
    gain, low, high = paired_gain([0, 0, 0, 0], [1, 1, 0, 0], ["a", "a", "b", "b"], 4000, 0)
    assert (gain, low, high) == (0.5, 0.0, 1.0)
    singles = {paired_gain([0, 0, 0, 0], [1, 1, 0, 0], ["a", "a", "b", "b"], 1, seed)[1] for seed in range(40)}
    assert singles == {0.0, 0.5, 1.0}


def test_pairs_are_needed() -> None:
    with pytest.raises(ValueError, match="equally many scores"):
        paired_gain([], [], [], 10, 0)
    with pytest.raises(ValueError, match="1 of 1 samples lack their base or tuned twin"):
        paired([{"prompt_id": "a", "seed": 0, "model": "base"}])


def test_frechet_distance_of_a_shift_and_a_stretch() -> None:
    """One feature. Means 0 and 3, variances 4 and 1 (unbiased): 9 + 4 + 1 - 2*2 = 10."""
    a = np.array([[-2.0], [0.0], [2.0]])
    b = np.array([[2.0], [3.0], [4.0]])
    assert frechet_distance(a, b) == pytest.approx(10)
    assert frechet_distance(a, a) == pytest.approx(0, abs=1e-9)


def test_frechet_distance_needs_two_images() -> None:
    with pytest.raises(ValueError, match="at least two images"):
        frechet_distance(np.zeros((1, 2)), np.zeros((3, 2)))


def save(folder, name: str, objects: list[Object]) -> str:
    path = f"{name}.png"
    Image.fromarray(render(Scene(tuple(objects)), 64)[0]).save(folder / path)
    return path


def test_the_oracle_tells_ignorance_from_mismatching(tmp_path) -> None:
    ball, cube = Object("ball", "red", 0.3, 0.3, 0.15), Object("cube", "blue", 0.7, 0.7, 0.15)
    green = Object("cube", "green", 0.7, 0.7, 0.15)
    index = []
    for seed, objects in enumerate(
        ([ball, cube], [ball], [ball, green], [ball, cube, Object("star", "pink", 0.3, 0.75, 0.15)])
    ):
        path = save(tmp_path, str(seed), objects)
        row = {"model": "base", "prompt_id": "a", "category": "color", "seed": seed}
        index.append({**row, "path": path, "text": "a red ball and a blue cube"})
    found = [(r["right"], r["ignored"], r["mismatched"]) for r in oracle_scores(index, tmp_path)]
    assert found == [(1, 0, 0), (0, 1, 0), (0, 0, 1), (0, 0, 0)]


def test_a_prompt_of_another_world_is_named(tmp_path) -> None:
    row = {"model": "base", "prompt_id": "a", "category": "c", "seed": 0, "text": "a dog on the moon"}
    row["path"] = save(tmp_path, "x", [])
    with pytest.raises(ValueError, match="cannot read 'a dog on the moon'"):
        list(oracle_scores([row], tmp_path))


def test_a_broken_image_is_named(tmp_path) -> None:
    (tmp_path / "x.png").write_bytes(b"nothing")
    with pytest.raises(ValueError, match=r"x\.png: not readable as an image"):
        read_rgb(tmp_path / "x.png")
    with pytest.raises(ValueError, match=r"y\.png: this image is missing"):
        read_rgb(tmp_path / "y.png")


def test_the_table_reads_well() -> None:
    row = {"base": 0.25, "tuned": 0.5, "gain": 0.25, "gain_low": 0.2, "gain_high": 0.3, "n": 200}
    metrics = {"oracle": {"color": row, "total": row}, "frechet": {"base": 2.0, "tuned": 1.0, "ratio": 0.5}}
    lines = result_table(metrics).splitlines()
    assert lines[2].split() == ["attribute", "binding", "25.0%", "50.0%", "+25.0", "[+20.0,", "+30.0]", "200"]
    assert "tuned/base 0.50" in lines[-1]


def test_the_grid_frames_what_is_right(tmp_path) -> None:
    path = save(tmp_path, "a", [Object("ball", "red", 0.5, 0.5, 0.2)])
    pair = ({"prompt_id": "p", "path": path, "right": 0.0}, {"prompt_id": "p", "path": path, "right": 1.0})
    sheet = np.asarray(pair_grid([pair], {"p": "a red ball"}, tmp_path))
    assert (sheet == (30, 140, 60)).all(2).sum() == pytest.approx((sheet == (200, 50, 50)).all(2).sum(), rel=0.01)
    assert parse_prompt("a red ball").total == 1
