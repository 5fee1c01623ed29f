"""Noise belongs to a sample, a working folder to one run, and what a process sets for itself is set in time."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from comat.models.record import write_lock
from comat.randomness import generator, noise, python_random
from comat.running.device import use_deterministic_algorithms
from comat.running.workdir import CODE, fingerprint, stage_directory, work_directory
from comat.storage.folders import work_root
from tests.conftest import ROOT


@given(st.lists(st.integers(0, 99), min_size=1, max_size=6), st.integers(0, 5), st.integers(0, 2**40))
def test_a_sample_s_noise_does_not_depend_on_its_batch(ids: list[int], row: int, seed: int) -> None:
    row %= len(ids)
    batch = noise((2, 3), [generator(seed, "noise", id) for id in ids])
    alone = noise((2, 3), [generator(seed, "noise", ids[row])])
    assert torch.equal(batch[row], alone[0])


def test_seed_purpose_and_index_all_matter() -> None:
    keys = [(0, "a", 1), (1, "a", 1), (0, "b", 1), (0, "a", 2), (0, "a", "1")]
    draws = {torch.rand((), generator=generator(*key)).item() for key in keys}
    assert len(draws) == len(keys)
    assert python_random(0, "a").random() == python_random(0, "a").random()


def test_the_fingerprint_sees_values_inputs_and_code(tmp_path) -> None:
    (tmp_path / "input").write_text("1")
    (tmp_path / "code.py").write_text("1")

    def prints(value: int) -> str:
        return fingerprint({"v": value}, [tmp_path / "input"], [tmp_path / "code.py"])

    found = [prints(1), prints(2)]
    (tmp_path / "input").write_text("2")
    found.append(prints(1))
    (tmp_path / "code.py").write_text("2")
    found.append(prints(1))
    assert len(set(found)) == 4
    assert prints(1) == found[-1]


def test_a_folder_is_kept_after_a_failure_and_removed_after_success(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("COMAT_WORK_DIR", str(tmp_path))
    with pytest.raises(RuntimeError), work_directory("train", "abc") as folder:
        (folder / "state").write_text("1")
        raise RuntimeError
    with work_directory("train", "abc") as folder:
        assert (folder / "state").read_text() == "1"
    assert not folder.exists()


@pytest.mark.parametrize(("named", "expected"), [(None, ".work"), ("", ".work"), ("/scratch/me", "/scratch/me")])
def test_an_empty_name_of_the_working_folder_is_none(monkeypatch, named: str | None, expected: str) -> None:
    """`COMAT_WORK_DIR= dvc repro` worked in folders of the project's root that are named like stages."""
    monkeypatch.delenv("COMAT_WORK_DIR", raising=False)
    if named is not None:
        monkeypatch.setenv("COMAT_WORK_DIR", named)
    assert work_root() == Path(expected)


def test_the_second_run_is_told_who_holds_the_folder(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("COMAT_WORK_DIR", str(tmp_path))
    code = "from comat.running.workdir import work_directory\nwith work_directory('train', 'abc'): print('got it')"
    with work_directory("train", "abc"):
        second = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert second.returncode != 0
    assert "another run of stage train holds this folder (process" in second.stderr


def test_another_local_model_is_another_run(make_params, tiny: Path, tmp_path: Path, monkeypatch) -> None:
    """What was half done with one model must not be finished with another of the same name."""
    monkeypatch.setenv("COMAT_WORK_DIR", str(tmp_path / "work"))
    shutil.copytree(tiny / "sdxl", tmp_path / "model")
    params = make_params(base_model=str(tmp_path / "model"))

    def folder() -> str:
        write_lock(params, tmp_path / "models")
        with stage_directory("s", params.model_dump(), tmp_path / "models", []) as work:
            return work.name

    before = folder()
    assert folder() == before
    (tmp_path / "model" / "unet" / "config.json").open("a").write(" ")
    assert folder() != before


def test_the_code_is_the_package_and_the_stages() -> None:
    code = {path for folder in CODE for path in folder.rglob("*.py")}
    assert {*(ROOT / "stages").glob("*.py"), *(ROOT / "comat").rglob("*.py")} == code


@pytest.mark.parametrize(
    ("own", "spins"), [({}, "10000"), ({"GOMP_SPINCOUNT": "7"}, "7"), ({"OMP_WAIT_POLICY": "PASSIVE"}, "None")]
)
@pytest.mark.parametrize("first", ["comat.cli", "stages.train", "benchmarks.rollout"])
def test_threads_do_not_spin_for_long(first: str, own: dict[str, str], spins: str) -> None:
    """Whatever is imported first; what the user has set is left alone. Of torch's own import it must be ahead."""
    code = (
        "import builtins, os, sys\n"
        "real = builtins.__import__\n"
        "def seen(name, *rest):\n"
        "    if name.split('.')[0] == 'torch' and 'torch' not in sys.modules:\n"
        "        print(os.environ.get('GOMP_SPINCOUNT')); sys.exit(0)\n"
        "    return real(name, *rest)\n"
        "builtins.__import__ = seen\n"
        f"import {first}\n"
        "print(os.environ.get('GOMP_SPINCOUNT'))\n"
    )
    clean = {name: value for name, value in os.environ.items() if name not in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")}
    found = subprocess.run([sys.executable, "-c", code], env=clean | own, cwd=ROOT, capture_output=True, text=True)
    assert found.stdout.strip() == spins, found.stderr


def test_deterministic_algorithms_are_asked_of_cublas_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG", raising=False)
    try:
        use_deterministic_algorithms(True)
        assert torch.are_deterministic_algorithms_enabled()
        assert os.environ.pop("CUBLAS_WORKSPACE_CONFIG") == ":4096:8"
        use_deterministic_algorithms(False)
        assert not torch.are_deterministic_algorithms_enabled() and "CUBLAS_WORKSPACE_CONFIG" not in os.environ
        monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":16:8")
        use_deterministic_algorithms(True)
        assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":16:8"
    finally:
        torch.use_deterministic_algorithms(False)
