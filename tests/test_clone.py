"""DVC in a clone: what one machine has pushed, another pulls, checks out, varies and applies."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from tests.imports import ROOT

PIPELINES = ("dvc.yaml", "data/shapes/dvc.yaml")
LOCK = "data/models/models.lock.json"
CHANGED = "lambda_adv"
"""The parameter that the experiment changes, of the stage `train`."""

MAKE = f"""
import json, sys
from pathlib import Path

record = json.loads(Path("roles.json").read_text())
if sys.argv[1] == "train":
    record["line"] = next(line for line in Path("params.yaml").read_text().splitlines() if "{CHANGED}" in line)
for out in map(Path, sys.argv[2:]):
    for path in [out] if out.suffix else [out / "models.lock.json", out / "report.json"]:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(record))
"""
"""In the place of every stage: writes its outs, a few bytes each, with the keys that dvc.yaml reads from them."""


def out_paths(stage: dict, cached: bool = False) -> list[str]:
    """The paths of a stage's outs; with `cached` those alone that DVC's cache is to hold."""
    found = [out if isinstance(out, dict) else {out: {}} for kind in ("outs", "metrics") for out in stage.get(kind, [])]
    return [path for out in found for path, options in out.items() if options.get("cache", True) or not cached]


@pytest.mark.parametrize("pipeline", PIPELINES)
def test_every_cached_out_has_an_entry_in_the_committed_lock(pipeline: str) -> None:
    """Without one, `dvc checkout`, `dvc pull` and `dvc exp apply` fail in every clone."""
    stages = YAML(typ="safe").load((ROOT / pipeline).read_text())["stages"]
    entries = YAML(typ="safe").load((ROOT / pipeline).with_name("dvc.lock").read_text())["stages"]
    cached = {path for stage in stages.values() for path in out_paths(stage, cached=True)}
    assert cached <= {out["path"] for entry in entries.values() for out in entry["outs"] if out["md5"]}


def run(folder: Path, *command: str) -> str:
    """What a command prints; fails with what it says where its exit status is not 0."""
    settings = {
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "HOME": str(folder.parent),
        "DVC_NO_ANALYTICS": "1",
        "DVC_SITE_CACHE_DIR": str(folder.parent / "site"),
        "GIT_AUTHOR_NAME": "a",
        "GIT_AUTHOR_EMAIL": "a@example.org",
        "GIT_COMMITTER_NAME": "a",
        "GIT_COMMITTER_EMAIL": "a@example.org",
    }
    done = subprocess.run(command, cwd=folder, env=settings, capture_output=True, text=True)
    assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def copy_with_small_stages(folder: Path) -> None:
    """The repository as it stands, in git, with stages that do nothing but write their outs."""
    for name in run(ROOT, "git", "ls-files", "-z").split("\0"):
        if (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, folder / name)
    yaml, roles = YAML(), {}
    for pipeline in PIPELINES:
        content = yaml.load(folder / pipeline)
        for name, stage in content["stages"].items():
            stage["cmd"] = f"python make.py {name} {' '.join(out_paths(stage))}"
            for entry in stage.get("params", []):
                if isinstance(entry, dict) and LOCK in entry:
                    roles |= {key.removesuffix(".sha256"): {"sha256": "0"} for key in entry[LOCK]}
        yaml.dump(content, folder / pipeline)
    (folder / "make.py").write_text(MAKE)
    (folder / "roles.json").write_text(json.dumps(roles))
    run(folder, "git", "init", "--quiet")
    run(folder, "git", "add", "--all")
    run(folder, "git", "commit", "--quiet", "--message", "small stages")


@pytest.mark.slow
def test_a_clone_pulls_checks_out_and_applies_an_experiment(tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    first.mkdir()
    copy_with_small_stages(first)
    run(first, "dvc", "repro")
    run(first, "dvc", "remote", "add", "--default", "store", str(tmp_path / "store"))
    run(first, "git", "commit", "--quiet", "--all", "--message", "outs, remote")
    run(first, "dvc", "push")

    run(tmp_path, "git", "clone", "--quiet", "first", "second")
    run(second, "dvc", "pull")
    run(second, "dvc", "checkout")
    assert run(second, "git", "status", "--porcelain") == ""
    assert "up to date" in run(second, "dvc", "status")

    run(second, "dvc", "exp", "run", "--name", "one", "--set-param", f"{CHANGED}=0.875")
    run(second, "git", "checkout", "--quiet", ".")
    run(second, "dvc", "checkout")
    assert "0.875" not in (second / "data/train/curves.csv").read_text()
    run(second, "dvc", "exp", "apply", "one")
    assert "0.875" in (second / "data/train/curves.csv").read_text()
