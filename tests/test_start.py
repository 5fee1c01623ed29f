"""Stages start quickly: parameters are checked before anything heavy is imported."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT, STAGES

HEAVY = ("torch", "transformers", "diffusers", "spacy", "pyarrow")


def after(code: str, folder: Path) -> str:
    """What a fresh Python prints that runs `code` in `folder`."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", code]
    return subprocess.run(command, cwd=folder, env=environment, check=True, capture_output=True, text=True).stdout


@pytest.mark.parametrize("stage", STAGES)
def test_wrong_parameters_are_refused_before_anything_heavy_is_imported(stage: str, tmp_path: Path) -> None:
    (tmp_path / "params.yaml").write_text("seed: wrong\n")
    code = f"""
import sys
from stages.{stage} import main
sys.argv = ["{stage}"]
try:
    main()
except SystemExit as stop:
    print(stop.code, [name for name in {HEAVY} if name in sys.modules])
"""
    assert after(code, tmp_path).strip() == "1 []"


@pytest.mark.parametrize("module", ["comat.tokenizers", "comat.models.record"])
def test_tokenizers_and_hashing_need_no_diffusers(module: str, tmp_path: Path) -> None:
    """Its import takes as long as torch's; prompts, entities and models do without."""
    code = f"import sys, {module}; print('diffusers' in sys.modules)"
    assert after(code, tmp_path).strip() == "False"
