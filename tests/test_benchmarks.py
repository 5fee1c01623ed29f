"""The benchmarks: all are there to be run, and that of the GPU runs on the models of the shapes world anywhere."""

from __future__ import annotations

import importlib
import os
import re
import subprocess
import sys

import pytest

from tests.conftest import ROOT


@pytest.mark.parametrize("name", sorted(file.stem for file in (ROOT / "benchmarks").glob("*.py")))
def test_a_benchmark_finds_what_it_imports(name: str) -> None:
    """As `python -m benchmarks.<name>`; one that imported its neighbour as a script failed where another called it."""
    importlib.import_module(f"benchmarks.{name}")


@pytest.mark.slow
def test_real_size_in_small() -> None:
    command = [sys.executable, "-m", "benchmarks.gpu_real_size", "--small", "--device", "cpu", "--repeats", "1"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    out = subprocess.run(command, cwd=ROOT, env=environment, check=True, capture_output=True, text=True).stdout
    rows = {
        row[0].strip(): [float(cell.rstrip("%")) for cell in row[1:]]
        for row in re.findall(r"^([a-z ]+?) +([\d.]+) +([\d.]+) +([\d.]+) +([\d.]+%)$", out, re.MULTILINE)
    }
    assert set(rows) == {"rollout", "losses on the image", "replay", "discriminator", "optimizer", "iteration"}
    assert all(seconds > 0 and peak > 0 for seconds, peak, _, _ in rows.values())
    assert rows["iteration"][2] == pytest.approx(sum(r[2] for n, r in rows.items() if n != "iteration"), abs=0.003)
    # T = 20 guided steps of 12 samples (the real ones fewer) against K = 5 forward and backward.
    assert rows["rollout"][2] > rows["replay"][2] > rows["discriminator"][2] > 0


@pytest.mark.slow
def test_killed_stages_end_with_the_same_bytes() -> None:
    """Three kills of DVC and its stage in the four stages that end with image_latents; the benchmark takes them all."""
    command = [sys.executable, "-m", "benchmarks.kill", "--kills", "3", "--target", "image_latents"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert len(re.findall(r"killed in \w+", done.stdout)) >= 2  # a moment may lie after the last stage
    assert re.search(r"\d+ files compared: 0 differ", done.stdout)
