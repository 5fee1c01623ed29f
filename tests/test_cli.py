"""The `comat` command: what it does, and what it says of bad input."""

from __future__ import annotations

import json
import shutil
from importlib import metadata
from pathlib import Path

import pytest
from typer.testing import CliRunner

from comat.cli import app
from tests.conftest import ROOT


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    shutil.copytree(ROOT / "presets", tmp_path / "presets")
    shutil.copy(ROOT / "params.yaml", tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def call(*words: str):
    return CliRunner().invoke(app, list(words))


def test_a_preset_replaces_the_parameters_comments_and_all(folder: Path) -> None:
    assert call("preset", "sd15").exit_code == 0
    assert (folder / "params.yaml").read_text() == (ROOT / "presets/sd15.yaml").read_text()
    (folder / "params.yaml").unlink()
    assert call("preset", "shapes").exit_code == 0
    assert (folder / "params.yaml").read_text() == (ROOT / "presets/shapes.yaml").read_text()
    assert not list(folder.glob("params.*.yaml"))


def test_edited_parameters_are_replaced_by_force_alone_and_kept(folder: Path) -> None:
    """Twice: each copy stays."""
    for number, edited in enumerate(("seed: 5\n", "seed: 6 # mine\n"), start=1):
        (folder / "params.yaml").write_text(edited)
        result = call("preset", "sdxl")
        assert result.exit_code == 1 and f"--force replaces it and keeps a copy (params.{number}.yaml)" in result.stderr
        assert (folder / "params.yaml").read_text() == edited and not (folder / f"params.{number}.yaml").exists()
        assert call("preset", "sdxl", "--force").exit_code == 0
        assert (folder / f"params.{number}.yaml").read_text() == edited
        assert (folder / "params.yaml").read_text() == (ROOT / "presets/sdxl.yaml").read_text()


def test_version_short_help_and_completion() -> None:
    assert call("--version").stdout == f"comat {metadata.version('comat')}\n"
    assert "Usage" in call("-h").stdout and "--install-completion" in call("-h").stdout
    assert "--guidance" in call("generate", "-h").stdout


def test_an_unknown_preset_leaves_the_parameters_alone(folder: Path) -> None:
    before = (folder / "params.yaml").read_text()
    result = call("preset", "sd99")
    assert result.exit_code == 1
    assert "error: no preset 'sd99'; there are: " in result.stderr and "shapes" in result.stderr
    assert (folder / "params.yaml").read_text() == before


def test_show_needs_a_result(folder: Path) -> None:
    result = call("show")
    assert result.exit_code == 1
    assert "no result here; run this in the project's root, after `dvc repro`" in result.stderr


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("entities", " "), "error: the prompt is empty; give a prompt, or a file of prompts"),
        (("entities", "missing.txt"), "error: missing.txt: no such file; give a file of prompts, or a prompt"),
        (("compose", "missing.json"), "error: missing.json: no such file; expected a plan of regions"),
    ],
)
def test_what_is_not_there_is_said_in_the_words_of_the_command(folder: Path, words: tuple[str, ...], said: str) -> None:
    result = call(*words)
    assert result.exit_code == 1 and result.stderr.startswith(said) and result.stderr.count("\n") == 1


@pytest.mark.parametrize("command", ["attention", "compare", "compose", "pairs", "preference", "generate", "export"])
def test_what_cannot_be_written_is_refused_before_anything_is_drawn(folder: Path, command: str) -> None:
    """A picture where a folder is, or a folder where a file is."""
    given = {"pairs": [], "preference": [], "export": [], "compose": ["plan.json"]}.get(command, ["a red cube"])
    there = "params.yaml" if command in ("generate", "export") else "presets"
    result = call(command, *given, "--out", there)
    assert result.exit_code == 2 and "Invalid value for '--out'" in result.stderr


def test_show_prints_the_table_and_the_pictures(folder: Path) -> None:
    row = {"base": 0.25, "tuned": 0.5, "gain": 0.25, "gain_low": 0.2, "gain_high": 0.3, "n": 200}
    metrics = {"oracle": {"total": row}, "frechet": {"base": 2.0, "tuned": 1.0, "ratio": 0.5}}
    (folder / "data/evaluate/pictures").mkdir(parents=True)
    (folder / "data/evaluate/metrics.json").write_text(json.dumps(metrics))
    (folder / "data/evaluate/pictures/grid.png").write_bytes(b"")
    result = call("show")
    assert result.exit_code == 0
    assert "25.0%   50.0%   +25.0" in result.stdout and "data/evaluate/pictures/grid.png" in result.stdout
    assert "report: data/evaluate/report.html" in result.stdout


def test_generate_needs_a_tuned_model_and_a_prompt(folder: Path) -> None:
    result = call("generate", "a red ball")
    assert result.exit_code == 1 and "run `dvc repro` first" in result.stderr
    assert "the prompt is empty" in call("generate", " ").stderr
    for words in (["--steps", "0"], ["--size", "2"], ["--guidance", "0.5"]):
        assert call("generate", "a red ball", *words).exit_code == 2


def test_export_names_its_forms(folder: Path) -> None:
    result = call("export", "--format", "safetensor")
    assert result.exit_code == 1 and "expected diffusers, kohya, merged" in result.stderr


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        (["compare", "a", "--experiment", "x", "--params", "other.yaml"], "--params is not read beside --experiment"),
        (["compare", "a", "--experiment", "x", "--data", "other"], "--data is not read beside --experiment"),
        (["attack", "--classifier", "x", "--prompts", "x.csv", "--template", "{}"], "--template is not read beside"),
    ],
)
def test_an_option_that_is_not_read_is_refused(asked: list[str], said: str) -> None:
    done = CliRunner().invoke(app, asked)
    assert done.exit_code == 1 and said in done.output
