"""Which pairs of images are shown, and in which order."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from comat.errors import UserError
from comat.evaluation.scores import SCORES
from comat.reporting.pairs import Pair, Shot, in_turns, read_shown, visible_first
from comat.storage.tables import write_table


def row(model: str, prompt: str, value: float, category: str = "c", seed: int = 0) -> dict:
    own = {"benchmark": "oracle", "model": model, "prompt_id": prompt, "text": prompt, "category": category}
    return {**own, "seed": seed, "path": f"{model}/{prompt}.png", "value": value, "details": '{"missing": 1}'}


def test_wins_and_losses_are_of_the_main_benchmark(tmp_path: Path) -> None:
    """Three pairs: +1, -0.5, 0. Another benchmark that says the opposite comes later."""
    values = {"a": (0.0, 1.0), "b": (0.5, 0.0), "c": (1.0, 1.0)}
    rows = [row(model, id, pair[i]) for i, model in enumerate(("base", "tuned")) for id, pair in values.items()]
    rows += [{**one, "benchmark": "other", "value": 1 - one["value"]} for one in rows]
    write_table(tmp_path / "scores.parquet", rows, SCORES)
    for one in rows:
        one["path"] = str(tmp_path / one["path"])
        Path(one["path"]).parent.mkdir(exist_ok=True)
        Image.new("RGB", (8, 8)).save(one["path"])
    write_table(tmp_path / "scores.parquet", rows, SCORES)
    shown = read_shown(tmp_path / "scores.parquet", 5)
    assert ([pair.text for pair in shown.gains], [pair.text for pair in shown.losses]) == (["a"], ["b"])
    assert (shown.benchmark, shown.won, shown.lost, len(shown.every)) == ("oracle", 1, 1, 3)
    assert shown.gains[0].tuned == Shot(tmp_path / "tuned/a.png", 1.0, {"missing": 1})


def test_images_are_those_of_the_run_that_was_judged(tmp_path: Path, monkeypatch) -> None:
    """Another project, whose own images have the same names."""
    for number, project in enumerate(("here", "there")):
        for model in ("base", "tuned"):
            path = tmp_path / project / f"data/{model}/a.png"
            path.parent.mkdir(parents=True)
            Image.new("RGB", (8, 8), (number, 0, 0)).save(path)
    monkeypatch.chdir(tmp_path / "here")
    rows = [{**row(model, "a", value), "path": f"data/{model}/a.png"} for model, value in (("base", 0), ("tuned", 1))]
    table, data = tmp_path / "there/data/evaluate/scores.parquet", tmp_path / "there/data"
    table.parent.mkdir()
    write_table(table, rows, SCORES)
    (pair,) = read_shown(table, 5, data).gains
    assert pair.shots.keys() == {"base", "tuned"} and all(
        shot.path.parent.parent == data for shot in pair.shots.values()
    )


def test_a_pair_without_its_twin_is_an_error(tmp_path: Path) -> None:
    write_table(tmp_path / "scores.parquet", [row("base", "a", 0.0)], SCORES)
    with pytest.raises(UserError, match="lack their base or tuned twin"):
        read_shown(tmp_path / "scores.parquet", 5)


def test_nothing_judged_is_an_error(tmp_path: Path) -> None:
    write_table(tmp_path / "scores.parquet", [], SCORES)
    with pytest.raises(UserError, match="no benchmark has judged single images"):
        read_shown(tmp_path / "scores.parquet", 5)


def test_categories_take_turns_among_equal_gains() -> None:
    """Gains 1 of categories x x y, and one of 2: the 2 first, then x, y, x. A second seed comes after the first."""

    def pair(name: str, category: str, gain: float, seed: int = 0) -> Pair:
        return Pair(name, name, category, seed, Shot(Path(), 0.0, {}), Shot(Path(), gain, {}))

    pairs = [pair("x1", "x", 1, seed=1), pair("x0", "x", 1), pair("y0", "y", 1), pair("z", "x", 2)]
    assert [one.text for one in in_turns(pairs)] == ["z", "x0", "y0", "x1"]
    assert [one.text for one in in_turns(pair(n, "x", g) for n, g in (("little", -0.1), ("much", -1.0)))] == [
        "much",
        "little",
    ]


def test_what_a_person_sees_comes_first_among_equal_gains(tmp_path: Path) -> None:
    """Grey against grey by 3 of 255 is not seen, by 5 it is; a wider gain stays before both."""

    def pair(name: str, gain: float, step: int) -> Pair:
        for model, value in (("base", 100), ("tuned", 100 + step)):
            Image.new("RGB", (64, 64), (value,) * 3).save(tmp_path / f"{name}-{model}.png")
        shots = (Shot(tmp_path / f"{name}-{model}.png", own, {}) for model, own in (("base", 0.0), ("tuned", gain)))
        return Pair(name, name, "c", 0, *shots)

    pairs = [pair("wide", 2, 0), pair("unseen", 1, 3), pair("seen", 1, 5)]
    assert [one.text for one in visible_first(pairs)] == ["wide", "seen", "unseen"]
