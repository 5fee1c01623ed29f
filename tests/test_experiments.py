"""Several experiments of DVC in one picture."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner

from comat.cli import app
from comat.reporting.grid import GAP, LABEL, TEXT

LORA = Path("data/train/lora/pytorch_lora_weights.safetensors")


def run(*command: str) -> None:
    if command[0] == "dvc":
        command = (sys.executable, "-m", *command)
    subprocess.run(command, check=True, capture_output=True)


@pytest.fixture(scope="module")
def tracked(project: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run in git and DVC as `trained`, and `zero`, whose LoRA says nothing; their folders are not there."""
    root = tmp_path_factory.mktemp("tracked") / "p"
    shutil.copytree(project, root, ignore=shutil.ignore_patterns(".work"))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        patch.setenv("GIT_CONFIG_GLOBAL", "/dev/null")
        for key in ("GIT_AUTHOR_NAME", "GIT_AUTHOR_EMAIL", "GIT_COMMITTER_NAME", "GIT_COMMITTER_EMAIL"):
            patch.setenv(key, "a@b.c")
        run("git", "init", "-q")
        run("dvc", "init", "-q")
        (root / ".gitignore").write_text("data/evaluate\n")
        for name in ("trained", "zero"):
            if name == "zero":
                save_file({key: 0 * value for key, value in load_file(LORA).items()}, LORA)
            run("dvc", "add", "-q", "data/models", "data/warmup", "data/train/lora")
            run("git", "add", "params.yaml", ".gitignore", "data/*.dvc", "data/train/lora.dvc", ".dvc")
            run("git", "commit", "-q", "-m", name)
            run("git", "tag", name)
        for folder in ("models", "warmup", "train"):
            shutil.rmtree(root / "data" / folder)
    return root


def test_each_experiment_has_its_row(tracked: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Base, trained, zero: the last is the base again to the bit, the middle one is not."""
    monkeypatch.chdir(tracked)
    out = tmp_path / "grid.png"
    asked = ["compare", "a red ball", "--experiment", "trained", "--experiment", "zero", "--seeds", "2"]
    done = CliRunner().invoke(app, [*asked, "--out", str(out)])
    assert done.exit_code == 0, done.output
    assert f"{out}: base above, then trained, zero" in done.output
    sheet = np.asarray(Image.open(out))
    height = (len(sheet) - TEXT) // 3
    base, trained, zero = (sheet[TEXT + row * height :][: height - GAP, LABEL:] for row in range(3))
    assert np.array_equal(base, zero)
    assert not np.array_equal(base, trained)


@pytest.mark.parametrize(
    ("lost", "name", "expected"),
    [
        (False, "nothing", "experiment 'nothing': unknown Git revision 'nothing'; `dvc exp list` names those"),
        (False, "base", "an experiment called 'base' would stand where the base does"),
        (
            True,
            "trained",
            "experiment 'trained': what it has trained is neither in git nor in DVC's cache here (failed to load",
        ),
    ],
)
def test_what_cannot_be_had_is_one_line(
    tracked: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lost: bool, name: str, expected: str
) -> None:
    root = tmp_path / "p"
    shutil.copytree(tracked, root, symlinks=True)
    if lost:
        shutil.rmtree(root / ".dvc/cache")
    monkeypatch.chdir(root)
    done = CliRunner().invoke(app, ["compare", "a red ball", "--experiment", name, "--out", str(tmp_path / "g.png")])
    assert done.exit_code == 1
    assert expected in done.output and not (tmp_path / "g.png").exists()
