"""`comat doctor`: what is wrong is found, and nothing hangs."""

from __future__ import annotations

import json
import shutil
import socket
import time
from pathlib import Path

import pytest
from huggingface_hub import constants
from ruamel.yaml import YAML
from typer.testing import CliRunner

from comat.cli import app
from comat.estimate.doctor import device, disk, hub, versions, weights
from comat.models.names import ModelName
from comat.params import load
from tests.conftest import ROOT
from tests.tiny_hub import serving


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Install a package `wanting` that requires what it is told."""

    def install(python: str, *requirements: str) -> None:
        folder = tmp_path / "wanting-1.0.dist-info"
        folder.mkdir()
        lines = ["Metadata-Version: 2.1", "Name: wanting", "Version: 1.0", f"Requires-Python: {python}"]
        lines += [f"Requires-Dist: {requirement}" for requirement in requirements]
        (folder / "METADATA").write_text("\n".join(lines) + "\n")
        monkeypatch.syspath_prepend(tmp_path)

    return install


def test_versions_out_of_range_are_problems(installed) -> None:
    installed(">=3.99", "numpy<1", "no-such-thing>=2", "torch>=2", "numpy<1; extra == 'dev'")
    found = list(versions("wanting"))
    assert [(one.name, one.state) for one in found] == [("Python", "problem")] + [("packages", "problem")] * 2
    assert "required is <1" in found[1].found
    assert found[2].found == "no-such-thing is missing, required is >=2"


def test_versions_in_range_are_well(installed) -> None:
    installed(">=3.11", "numpy>=2", "torch>=2", "numpy<1; python_version < '3'")
    assert [(one.state, one.found) for one in versions("wanting")][1:] == [("ok", "all 2 in the required ranges")]


def test_a_project_that_is_not_installed_is_a_problem() -> None:
    (found,) = versions("no-such-project")
    assert found.state == "problem" and "pip install -e ." in found.remedy


@pytest.mark.parametrize(
    ("name", "precision", "state"),
    [("cpu", "fp32", "ok"), ("cpu", "bf16", "warning"), ("cuda:99", "fp32", "problem")],
)
def test_a_device_that_is_not_there_is_a_problem(name: str, precision: str, state: str) -> None:
    assert [one.state for one in device(name, precision)] == ["ok", state]


def test_a_disk_is_found_before_its_folder_is(tmp_path: Path) -> None:
    found = disk("cache", tmp_path / "not/yet/there")
    assert str(tmp_path) in found.found and "not/yet" not in found.found


def test_a_hub_that_answers_is_reachable_whatever_it_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with serving(tmp_path) as server:
        monkeypatch.setattr(constants, "ENDPOINT", server.url)
        assert hub().state == "ok"


def test_a_hub_that_is_silent_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{silent.getsockname()[1]}")
        start = time.monotonic()
        assert hub(patience=0.3).state == "warning"
        assert time.monotonic() - start < 5
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert "HF_HUB_OFFLINE" in hub().found


def test_missing_weights_are_a_problem_where_no_hub_has_them(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    blip = ModelName("captioner_model", str(tiny / "blip"), None)
    used = ("config.json", "generation_config.json", "model.safetensors", "preprocessor_config.json")
    size = sum((tiny / "blip" / n).stat().st_size for n in (*used, "tokenizer.json", "tokenizer_config.json"))
    assert weights(blip, reachable=False).state == "ok"
    assert f"{size / 1000:.1f} kB" in weights(blip, reachable=False).found
    distant = ModelName("captioner_model", "user/blip", None)
    assert weights(distant, reachable=True).state == "warning"
    assert weights(distant, reachable=False).state == "problem"
    shutil.copytree(tiny / "blip", tmp_path / "blip")
    (tmp_path / "blip/model.safetensors").unlink()
    broken = weights(ModelName("captioner_model", str(tmp_path / "blip"), None), reachable=True)
    assert broken.state == "problem" and "has no weights" in broken.remedy


@pytest.mark.parametrize(("captioner", "status"), [("data/shapes/models/captioner", 0), ("no/where", 1)])
def test_the_exit_status_tells(captioner: str, status: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    values = load(ROOT / "params.yaml").model_dump()
    world = json.loads(json.dumps(values).replace("data/shapes", f"{ROOT}/data/shapes"))
    path = tmp_path / "params.yaml"
    YAML().dump({**world, "captioner_model": str(ROOT / captioner)}, path)
    result = CliRunner().invoke(app, ["doctor", "--params", str(path)])
    assert result.exit_code == status, result.stdout
    assert ("problem" in result.stdout) == bool(status)
