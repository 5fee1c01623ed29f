"""The arithmetic of the evaluation, by hand."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from torch import nn

from comat.errors import UserError
from comat.evaluation.statistics import exact_interval, mean_interval, mean_of_means_interval
from comat.evaluation.summary import comparison, means, paired
from comat.judges.benchmark import Drawn
from comat.judges.frechet import batches, frechet_distances
from comat.judges.oracle import Oracle
from comat.reporting.grid import pair_grid
from comat.reporting.pairs import Pair, Shot
from comat.reporting.table import result_table
from comat.shapes.world.render import render
from comat.shapes.world.scenes import Object, Scene
from comat.storage.images import read_rgb
from comat.storage.tables import write_csv


def test_the_mean_of_equal_values_has_no_width() -> None:
    assert mean_interval([1, 1, 1], ["a", "a", "b"], 100, 0) == (1.0, 1.0, 1.0)


def test_prompts_are_resampled_not_images() -> None:
    """Two prompts of two images: values 1 and 0. Resampled means are 0, 1/2 or 1; resampled images would give 1/4."""
    assert mean_interval([1, 1, 0, 0], ["a", "a", "b", "b"], 4000, 0) == (0.5, 0.0, 1.0)
    singles = {mean_interval([1, 1, 0, 0], ["a", "a", "b", "b"], 1, seed)[1] for seed in range(40)}
    assert singles == {0.0, 0.5, 1.0}


@given(st.lists(st.tuples(st.floats(-5, 5), st.sampled_from("abc")), min_size=1, max_size=12))
def test_the_interval_lies_within_the_values(rows: list[tuple[float, str]]) -> None:
    values, groups = zip(*rows, strict=True)
    mean, low, high = mean_interval(values, groups, 50, 0)
    assert min(values) - 1e-9 <= low <= high <= max(values) + 1e-9
    assert mean == pytest.approx(sum(values) / len(values), abs=1e-9)


def test_values_and_groups_are_needed() -> None:
    with pytest.raises(ValueError, match="equally many values and groups"):
        mean_interval([], [], 10, 0)


def row(model: str, prompt: str, value: float, category: str = "color", **details: float | str) -> dict:
    own = {"model": model, "prompt_id": prompt, "category": category, "seed": 0, "value": value}
    return {**own, "benchmark": "any", "text": prompt, "path": "x.png", "details": json.dumps(details)}


def test_pairs_are_needed() -> None:
    with pytest.raises(ValueError, match="1 of 1 samples lack their base or tuned twin"):
        paired([row("base", "a", 0)])


def test_a_comparison_by_hand() -> None:
    """Colour: base 0.2, tuned 0.6, so gain 0.4. Counting: 0.4 and 0.4. Total: 0.3, 0.5, gain 0.2.

    `missing` is a number in every row, so it is averaged; `answer` is not.
    """
    scores = [
        row("base", "a", 0.2, missing=1.0, answer="no"),
        row("base", "b", 0.4, "numeracy", missing=1.0, answer="no"),
        row("tuned", "a", 0.6, missing=0.0, answer="yes"),
        row("tuned", "b", 0.4, "numeracy", missing=1.0),
    ]
    found = comparison(scores, 2000, 0)
    assert list(found) == ["color", "numeracy", "total"]
    expected = {"base": 0.2, "tuned": 0.6, "gain": 0.4, "n": 1, "prompts": 1, "base_missing": 1, "tuned_missing": 0}
    ends = {f"{name}_{end}" for name in ("base", "tuned", "gain") for end in ("low", "high")}
    assert {key: value for key, value in found["color"].items() if key not in ends} == pytest.approx(expected)
    assert {found["color"][end] for end in ends} == {None}
    total = found["total"]
    assert (total["base"], total["tuned"], total["gain"], total["n"]) == pytest.approx((0.3, 0.5, 0.2, 2))
    assert total["tuned_missing"] == 0.5


def test_intervals_are_of_ten_prompts_or_more() -> None:
    """Ten prompts, whose base scores 2 to 3 and whose tuned model 1 more: the gain is 1, whatever is drawn."""
    prompts = [(str(n), 2 + n / 9) for n in range(10)]
    scores = [row("base", *own) for own in prompts] + [row("tuned", name, value + 1) for name, value in prompts]
    total = comparison(scores, 2000, 0)["total"]
    assert (total["gain_low"], total["gain"], total["gain_high"]) == pytest.approx((1, 1, 1))
    assert 2 < total["base_low"] < 2.4 and 2.6 < total["base_high"] < 3
    few = comparison([own for own in scores if own["prompt_id"] != "0"], 2000, 0)["total"]
    assert (few["prompts"], few["base_low"], few["gain_high"]) == (9, None, None)


def test_the_exact_interval_is_clopper_and_pearsons() -> None:
    """One image a prompt: 0 of 20 up to 1 - 0.025^(1/20) = 0.1684; 1 of 20 from 0.00127 to 0.2487 (their table)."""
    groups = [str(n) for n in range(20)]
    assert exact_interval([0.0] * 20, groups) == pytest.approx((0, 0, 0.1684), abs=1e-4)
    assert exact_interval([1.0] * 20, groups) == pytest.approx((1, 0.8316, 1), abs=1e-4)
    assert exact_interval([1.0] + [0.0] * 19, groups) == pytest.approx((0.05, 0.00127, 0.2487), abs=1e-4)


def test_images_of_one_prompt_count_as_one_where_they_are_equal() -> None:
    singles = exact_interval([1.0] + [0.0] * 19, [str(n) for n in range(20)])
    doubled = exact_interval([1.0, 1.0] + [0.0] * 38, [str(n // 2) for n in range(40)])
    assert singles[2] < doubled[2] < singles[2] + 0.02  # a little wider: the variance is less well known
    apart = exact_interval([1.0, 0.0, 1.0, 0.0] + [0.0] * 36, [str(n // 2) for n in range(40)])
    assert apart[2] < doubled[2]


def test_rare_successes_have_an_interval_that_is_no_point() -> None:
    """0 of 20 against 1 of 20: a gain of 0.05, from 0.05 - hypot(0.0487, 0.1684) to 0.05 + hypot(0.1987, 0)."""
    prompts = [str(n) for n in range(20)]
    scores = [row("base", n, 0.0) for n in prompts] + [row("tuned", n, float(n == "0")) for n in prompts]
    total = comparison(scores, 2000, 0)["total"]
    assert (total["base_low"], total["base_high"]) == pytest.approx((0, 0.1684), abs=1e-4)
    assert (total["gain_low"], total["gain_high"]) == pytest.approx((0.05 - 0.1753, 0.05 + 0.1987), abs=1e-3)


@given(st.lists(st.tuples(st.floats(0, 1), st.integers(0, 14)), min_size=2, max_size=40))
def test_an_exact_interval_lies_around_its_mean_and_between_0_and_1(rows: list[tuple[float, int]]) -> None:
    values, numbers = zip(*rows, strict=True)
    groups = [str(number) for number in numbers]
    if len(set(groups)) > 1:
        mean, low, high = exact_interval(values, groups)
        assert 0 <= low <= mean + 1e-9 and mean - 1e-9 <= high <= 1


def test_questions_are_counted_each_not_by_image() -> None:
    """Colour: 1 of 3 questions of one image and 1 of 1 of another are 2 of 4; by image it would be 2/3."""
    said = [[("color", True), ("color", False), ("color", False)], [("color", True), ("count", False)]]
    scores = []
    for model in ("base", "tuned"):
        for number, own in enumerate(said):
            right = [
                {"category": kind, "right": r or model == "tuned", "question": "x", "answer": "y"} for kind, r in own
            ]
            scores.append(row(model, str(number), 0.0) | {"details": json.dumps({"questions": right})})
    found = comparison(scores, 10, 0)
    assert list(found) == ["color", "color (questions)", "count", "total"]
    assert (found["color (questions)"]["base"], found["color (questions)"]["tuned"]) == (0.5, 1.0)
    assert (found["color (questions)"]["n"], found["color (questions)"]["prompts"], found["count"]["n"]) == (4, 2, 1)
    assert means(scores[:2], 10, 0)["color (questions)"]["value"] == 0.5


@given(st.lists(st.sampled_from(["total", "total (category)", "total (category) (category)", "a", "a (category)"])))
def test_categories_of_any_name_keep_their_rows_and_the_total_its_own(names: list[str]) -> None:
    """Prompt n scores n for the base and n + 1 for the tuned model."""
    prompts = [("first", "a"), *((str(place), name) for place, name in enumerate(names))]
    scores = [row(m, id, n + t, name) for t, m in enumerate(("base", "tuned")) for n, (id, name) in enumerate(prompts)]
    found = comparison(scores, 10, 0)
    assert list(found)[-1] == "total" and found["total"]["n"] == len(prompts)
    assert found["total"]["base"] == pytest.approx((len(prompts) - 1) / 2)
    assert len(found) == len({name for _, name in prompts}) + 1
    assert sum(own["n"] for own in found.values()) == 2 * len(prompts)
    assert list(found) == list(means([one for one in scores if one["model"] == "base"], 10, 0))


def test_details_of_any_name_take_no_place_of_the_numbers() -> None:
    """Kinds of TIFA's questions are what its file calls them."""
    details = json.dumps({"low": 0.1, "value": 0.2, "n": 0.3})
    scores = [row(model, "a", 0.5) | {"details": details} for model in ("base", "tuned")]
    found = comparison(scores, 10, 0)["total"]
    assert (found["base_low"], found["base_low (detail)"], found["tuned_value"]) == (None, 0.1, 0.2)
    found = means(scores[:1], 10, 0)["total"]
    assert (found["value"], found["value (detail)"], found["n"], found["n (detail)"]) == (0.5, 0.2, 1, 0.3)


@pytest.mark.parametrize("name", ["a, b", 'say "cube"', "two\nlines", "arts & crafts", "größer"])
def test_a_csv_gives_back_what_was_written(tmp_path: Path, name: str) -> None:
    write_csv(tmp_path / "a.csv", ("category", "score"), [(name, "0.5")])
    with (tmp_path / "a.csv").open(newline="", encoding="utf-8") as file:
        assert list(csv.DictReader(file)) == [{"category": name, "score": "0.5"}]


def test_no_cell_is_a_formula(tmp_path: Path) -> None:
    cells = ["=1+1", "+x", "-x", "@x", "\t=1", "\r=1", "-0.5", "x=1"]
    write_csv(tmp_path / "a.csv", ("cell",), [(cell,) for cell in cells] + [(-0.5,)])
    with (tmp_path / "a.csv").open(newline="", encoding="utf-8") as file:
        read = [row["cell"] for row in csv.DictReader(file)]
    assert read == ["'=1+1", "'+x", "'-x", "'@x", "'\t=1", "' =1", "-0.5", "x=1", "-0.5"]


def test_means_of_one_model_by_hand() -> None:
    scores = [row("peer", "a", 0.2, missing=1.0), row("peer", "b", 0.4, missing=0.0)]
    found = means(scores, 2000, 0)["total"]
    assert found.pop("value") == pytest.approx(0.3)
    assert found == {"value_low": None, "value_high": None, "n": 2, "prompts": 2, "missing": 0.5}


def test_the_total_of_geneval_is_the_mean_over_its_tags() -> None:
    """Counting (1, 0) and colour (1 in all of 4): 1/2 and 1, so 3/4; over the 6 images it would be 5/6.

    The base is wrong in all of counting: 1/2. The gain is 1/4.
    """
    tuned = [("a", 1.0, "counting"), ("b", 0.0, "counting"), *((name, 1.0, "colors") for name in "cdef")]
    base = [("a", 0.0, "counting"), *tuned[1:]]
    scores = [row("base", *own) for own in base] + [row("tuned", *own) for own in tuned]
    total = comparison([own | {"benchmark": "geneval"} for own in scores], 2000, 0)["total"]
    assert (total["tuned"], total["base"], total["gain"], total["n"]) == (0.75, 0.5, 0.25, 6)
    assert comparison(scores, 2000, 0)["total"]["tuned"] == pytest.approx(5 / 6)
    peer = means([row("peer", *own) | {"benchmark": "geneval"} for own in tuned], 2000, 0)
    assert (peer["total"]["value"], peer["counting"]["value"]) == (0.75, 0.5)


def test_the_prompts_of_each_part_are_drawn_apart() -> None:
    """Of two prompts both are right, one is, or none: 1, 1/2, 0. The other part's are always right."""
    parts = [([1.0, 0.0], ["a", "b"]), ([1.0] * 4, list("cdef"))]
    assert mean_of_means_interval(parts, 2000, 0) == (0.75, 0.5, 1.0)


def test_what_is_not_finite_is_an_error() -> None:
    with pytest.raises(ValueError, match="expected finite values: 1 of 2 are not"):
        comparison([row(m, n, v) for m in ("base", "tuned") for n, v in (("a", 0.5), ("b", float("nan")))], 10, 0)


class Brightness(nn.Module):
    """One feature: the sum of an image's values."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return images.double().sum((1, 2, 3))[:, None]


def grey(values: list[int]) -> list[np.ndarray]:
    """Images of one pixel whose values sum to `values`."""
    return [np.array([[[value, 0, 0]]], np.uint8) for value in values]


def test_frechet_distance_of_a_shift_and_a_stretch() -> None:
    """One feature. Means 2 and 5, variances 4 and 1 (unbiased): 9 + 4 + 1 - 2*2 = 10."""
    real = list(batches(grey([0, 2, 4]), 2))
    assert [len(batch) for batch in real] == [2, 1]
    drawn = {"shifted": batches(grey([4, 5, 6]), 2), "same": batches(grey([0, 2, 4]), 3)}
    found = frechet_distances(Brightness(), real, drawn, torch.device("cpu"))
    assert found == {"shifted": pytest.approx(10), "same": pytest.approx(0, abs=1e-9)}


def test_frechet_distance_needs_two_images() -> None:
    with pytest.raises(UserError, match="at least two images a set, got 2 real, 1 of base"):
        frechet_distances(Brightness(), batches(grey([1, 2]), 2), {"base": batches(grey([1]), 2)}, torch.device("cpu"))


def save(folder: Path, name: str, objects: list[Object]) -> str:
    path = f"{name}.png"
    Image.fromarray(render(Scene(tuple(objects)), 64)[0]).save(folder / path)
    return path


def drawn_image(path: str, text: str = "a red ball and a blue cube") -> Drawn:
    return Drawn("base", "a", text, "lists", "color", 0, path)


def test_the_oracle_tells_ignorance_from_mismatching(tmp_path: Path) -> None:
    ball, cube = Object("ball", "red", 0.3, 0.3, 0.15), Object("cube", "blue", 0.7, 0.7, 0.15)
    green, star = Object("cube", "green", 0.7, 0.7, 0.15), Object("star", "pink", 0.3, 0.75, 0.15)
    scenes = ([ball, cube], [ball], [ball, green], [ball, cube, star])
    images = [drawn_image(save(tmp_path, str(n), objects)) for n, objects in enumerate(scenes)]
    found = [(s.value, s.details["ignored"], s.details["mismatched"]) for s in Oracle().scores(images, tmp_path)]
    assert found == [(1, 0, 0), (0, 1, 0), (0, 0, 1), (0, 0, 0)]


def test_the_oracle_covers_its_own_world_alone() -> None:
    assert Oracle().covers(drawn_image("x.png"))
    assert not Oracle().covers(drawn_image("x.png", "a dog on the moon"))


def test_a_broken_image_is_named(tmp_path) -> None:
    (tmp_path / "x.png").write_bytes(b"nothing")
    with pytest.raises(ValueError, match=r"x\.png: not readable as an image"):
        read_rgb(tmp_path / "x.png")
    with pytest.raises(ValueError, match=r"y\.png: this image is missing"):
        read_rgb(tmp_path / "y.png")


def test_the_table_reads_well() -> None:
    row = {"base": 0.25, "tuned": 0.5, "gain": 0.25, "gain_low": 0.2, "gain_high": 0.3, "n": 200}
    clip = {"base": 24.0, "tuned": 25.5, "gain": 1.5, "gain_low": 1.0, "gain_high": 2.0, "n": 200}
    metrics = {"oracle": {"color": row, "total": row}, "clip_score": {"total": clip}}
    metrics["frechet"] = {"base": 2.0, "tuned": 1.0, "ratio": 0.5}
    assert "color " in result_table({"t2i_compbench": {"color": row, "shape": row}}), "the world's words are its own"
    counted = metrics["frechet"] | {"n": 3, "n_real": 49, "left_out": 1}
    assert result_table({"fid": counted}).endswith("of 3 images and 49 photographs; 1 were left out")
    peers = {"pixart": {"oracle": {"color": {"value": 0.3}, "total": {"value": 0.4}}, "frechet": {"value": 3.0}}}
    lines = result_table(metrics, peers).splitlines()
    binding = ["attribute", "binding", "25.0%", "50.0%", "+25.0", "[+20.0,", "+30.0]", "200", "30.0%"]
    assert lines[2].split() == binding
    assert lines[0].split()[-1] == "pixart"
    assert lines[7].split() == ["total", "24.00", "25.50", "+1.50", "[+1.00,", "+2.00]", "200", "nan"]
    distance = "Fréchet distance 2.000 1.000 tuned/base 0.50, lower is better 3.000"
    assert " ".join(lines[-1].split()) == distance


def test_the_grid_frames_the_better_image_green(tmp_path: Path) -> None:
    path = tmp_path / save(tmp_path, "a", [Object("ball", "red", 0.5, 0.5, 0.2)])
    pair = Pair("p", "a red ball", "color", 0, Shot(path, 20.0, {}), Shot(path, 30.0, {}))
    sheet = np.asarray(pair_grid([pair], (20.0, 30.0)))
    red, green = (np.argwhere((sheet == colour).all(2)) for colour in ((200, 50, 50), (30, 140, 60)))
    assert len(red) == pytest.approx(len(green), rel=0.01)
    assert red[:, 1].max() < green[:, 1].min()
