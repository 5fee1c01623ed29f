"""A run without any judge ends in pictures, words and the preference page."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from ruamel.yaml import YAML
from typer.testing import CliRunner

from comat.cli import app
from comat.params import load
from tests.conftest import run


def test_a_run_without_a_judge_ends_in_pictures_words_and_the_preference_page(
    broken: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    values = load(broken / "params.yaml").model_dump()
    values["evaluate"] |= {"oracle": False, "clip_score": None, "frechet": None}
    YAML().dump(values, broken / "params.yaml")
    shutil.rmtree(broken / "data/evaluate")
    run("models", broken)
    run("evaluate", broken)
    left = broken / "data/evaluate"
    assert json.loads((left / "metrics.json").read_text()) == {}
    assert (left / "categories.csv").read_text().splitlines() == ["category,score"]
    pictures = {path.name for path in (left / "pictures").glob("*.png")}
    assert "grid.png" in pictures and "attention-0.png" in pictures and "got_better.png" not in pictures
    report = (left / "report.html").read_text()
    assert "Nothing is judged" in report and report.count('<figure class="pair"') >= 4
    assert len(json.loads((left / "likelihood.json").read_text())["images"]) == 2 * values["evaluate"]["grid_pairs"]
    monkeypatch.chdir(broken)
    assert "nothing is judged" in CliRunner().invoke(app, ["show"]).stdout
    asked = CliRunner().invoke(app, ["preference", "--count", "2"])
    assert asked.exit_code == 0, asked.output
    assert (broken / "preference.html").is_file()
