"""The world's models: git tracks those that keep what the world promises."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from comat.shapes.recipe.promises import CAPTIONER_PROMISES, FLOW_PROMISES, PROMISES, broken
from comat.shapes.recipe.release import FLOW_RELEASED, RELEASED
from comat.shapes.recipe.release import main as release
from tests.imports import ROOT


def measured(promises: Mapping[str, tuple[float, float]] = PROMISES, **values: float) -> dict:
    """Measurements that keep every promise, but for some."""
    result: dict = {}
    for key, (low, _) in promises.items():
        *path, last = key.split(".")
        part = result
        for name in path:
            part = part.setdefault(name, {})
        part[last] = values.get(key, low)
    return result


def test_the_models_that_git_tracks_keep_what_the_world_promises() -> None:
    worlds = {"": PROMISES, "flow_": FLOW_PROMISES, "captioner_": CAPTIONER_PROMISES}
    for world, promises in worlds.items():
        assert broken(json.loads((ROOT / f"data/shapes/{world}measurements.json").read_text()), promises) == []


def test_a_promise_is_kept_from_its_lowest_to_its_highest_value() -> None:
    assert broken(measured()) == []
    assert broken(measured(**{"base_training_resolution.uniform.right": 0.61})) == [
        "base_training_resolution.uniform.right is 0.610, expected 0.25 to 0.6"
    ]
    assert broken({**measured(), "segmenter": {"iou": 0.0}}) == [
        "segmenter.iou is 0.000, expected 0.85 to 1",
        "segmenter.absent_empty was not measured",
    ]


def released(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, measurements: dict) -> list[str]:
    """What stands in the folder of models after a release that should replace "old" by "new"."""
    for name in RELEASED:
        for folder, kind in ("trained", "new"), ("models", "old"):
            (tmp_path / folder / name).mkdir(parents=True, exist_ok=True)
            (tmp_path / folder / name / "config.json").write_text(kind)
    (tmp_path / "measurements.json").write_text(json.dumps(measurements))
    options = [f"--{name}={tmp_path / name}" for name in ("trained", "models")]
    monkeypatch.setattr(sys, "argv", ["release", *options, f"--measurements={tmp_path / 'measurements.json'}"])
    try:
        release()
    finally:
        found = sorted(tmp_path.glob("models/*"))
        assert [path.name for path in found] == sorted(RELEASED)
        texts = [(path / "config.json").read_text() for path in found]
    return texts


def test_models_that_keep_the_promises_are_released(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert released(tmp_path, monkeypatch, measured()) == ["new"] * len(RELEASED)


@pytest.mark.parametrize("measurements", [measured(**{"segmenter.iou": 0.33}), {}, []])
def test_models_that_break_a_promise_are_not_released(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture, measurements: object
) -> None:
    with pytest.raises(SystemExit, match="1"):
        released(tmp_path, monkeypatch, measurements)
    line = capsys.readouterr().err
    assert line.startswith("error: ") and line.count("\n") == 1 and "measurements.json" in line
    assert {path.read_text() for path in tmp_path.glob("models/*/config.json")} == {"old"}


@pytest.mark.parametrize("right", [0.70, 0.69])
def test_the_second_world_is_released_under_its_own_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, right: float
) -> None:
    for name in FLOW_RELEASED:
        (tmp_path / "trained" / name).mkdir(parents=True)
        (tmp_path / "trained" / name / "config.json").write_text("new")
    (tmp_path / "measurements.json").write_text(json.dumps(measured(FLOW_PROMISES, **{"flow.dominant.right": right})))
    options = [f"--{name}={tmp_path / name}" for name in ("trained", "models")]
    measurements = f"--measurements={tmp_path / 'measurements.json'}"
    monkeypatch.setattr(sys, "argv", ["release", "--world=flow", *options, measurements])
    if right < 0.7:
        with pytest.raises(SystemExit, match="1"):
            release()
    else:
        release()
    assert [path.name for path in tmp_path.glob("models/*")] == (["flow"] if right >= 0.7 else [])
