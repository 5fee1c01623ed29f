"""Loggers by name, through accelerate's own trackers, as their files hold what they were told; and unknown ones."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import sqlite3
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from comat.errors import UserError
from comat.params import load
from comat.training.loggers import started
from tests.conftest import ROOT


def told_by_name(name: str, folder: Path) -> None:
    """Tell the logger of that name two steps through accelerate's own tracker, interrupted between them."""
    work = folder / "0123456789abcdef"
    work.mkdir()
    parameters = {"seed": 0, "vae": None, "train": {"guard": {"every": 5}}, "captioner": ["a"]}
    for step in (0, 1):
        with started([name], work, parameters) as loggers:
            loggers.values("train", {"loss": 0.5 + step, "grad_norm": float("nan")}, step)
            loggers.pictures({"preview/1 a red ball": np.full((4, 6, 3), 200, np.uint8)}, step)
            assert [tracker.name for tracker in loggers.trackers] == [name]
        (work / "state.safetensors").touch()


def test_tensorboard_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    told_by_name("tensorboard", tmp_path)
    own = tmp_path / "logs/tensorboard/train-0123456789abcdef"
    tags = [tag for path in own.glob("events*") for tag in tags_of(path)]
    assert tags.count("train/loss") == 2 and "train/grad_norm" not in tags
    assert sum(tag.startswith("preview/1") for tag in tags) == 2
    (parameters,) = own.rglob("hparams.yml")
    assert "train.guard.every: 5" in parameters.read_text()


def test_dvclive_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("dvclive", reason="dvclive is not installed")
    monkeypatch.chdir(tmp_path)
    told_by_name("dvclive", tmp_path)
    own = tmp_path / "logs/dvclive/train-0123456789abcdef"
    values = [line.split("\t") for line in (own / "plots/metrics/train/loss.tsv").read_text().splitlines()]
    assert [(row[-2], row[-1]) for row in values[1:]] == [("0", "0.5"), ("1", "1.5")]
    assert (own / "plots/images/preview/1 a red ball.png").exists()
    assert "train.guard.every: 5" in (own / "params.yaml").read_text()
    assert not (tmp_path / "dvc.yaml").exists() and not (own / "dvc.yaml").exists()


def test_wandb_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Offline, as its own files hold it: a log of blocks of 32 kB in records of a checksum, a length and a kind."""
    pytest.importorskip("wandb", reason="wandb is not installed")
    from wandb.proto.wandb_internal_pb2 import Record

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("WANDB_MODE", "offline")
    told_by_name("wandb", tmp_path)
    found: dict[int, dict[str, str]] = {}
    runs = sorted((tmp_path / "logs/wandb").rglob("*.wandb"))
    assert len(runs) == 2 and {path.name for path in runs} == {"run-train-0123456789abcdef.wandb"}
    for path in runs:
        data, at = path.read_bytes(), 7
        while at < len(data):
            size = int.from_bytes(data[at + 4 : at + 6], "little")
            history = Record.FromString(data[at + 7 : at + 7 + size]).history  # of one block each, all in the first
            values = {item.key or "/".join(item.nested_key): item.value_json for item in history.item}
            found |= {history.step.num: values} if values else {}
            at += size + 7
    assert {step: values["train/loss"] for step, values in found.items()} == {0: "0.5", 1: "1.5"}
    assert all(values["preview/1 a red ball/height"] == "4" for values in found.values())
    assert len([*(tmp_path / "logs/wandb").rglob("1 a red ball*.png")]) == 2


def test_trackio_by_name(tmp_path: Path) -> None:
    """In its own cache, which it chooses when it is imported: hence a process of its own."""
    pytest.importorskip("trackio", reason="trackio is not installed")
    environment = {**os.environ, "TRACKIO_DIR": str(tmp_path / "cache"), "PYTHONPATH": os.pathsep.join(sys.path)}
    code = "from pathlib import Path; from tests.test_loggers import told_by_name; told_by_name('trackio', Path())"
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=environment, check=True, capture_output=True)
    with contextlib.closing(sqlite3.connect(tmp_path / "cache/comat.db")) as base:
        rows = [(step, json.loads(values)) for step, values in base.execute("select step, metrics from metrics")]
        (parameters,) = [json.loads(own) for (own,) in base.execute("select config from configs")]
    assert [(step, own["train/loss"]) for step, own in rows if "train/loss" in own] == [(0, 0.5), (1, 1.5)]
    assert [step for step, own in rows if "preview/1 a red ball" in own] == [0, 1]
    assert parameters["train.guard.every"] == 5
    assert len([*(tmp_path / "cache/media").rglob("*.png")]) == 2


def tags_of(path: Path) -> list[str]:
    """The tags of an event file: records of a length (8 bytes), its checksum (4), the message, and its checksum (4)."""
    from tensorboardX.proto.event_pb2 import Event

    data, at, found = path.read_bytes(), 0, []
    while at < len(data):
        size = int.from_bytes(data[at : at + 8], "little")
        event = Event.FromString(data[at + 12 : at + 12 + size])
        found += [value.tag for value in event.summary.value]
        at += size + 16
    return found


def test_a_logger_that_is_not_installed_is_one_error_before_training(project: Path, tmp_path: Path) -> None:
    shutil.copytree(project, tmp_path / "p", ignore=shutil.ignore_patterns(".work"))
    text = (tmp_path / "p/params.yaml").read_text()
    (tmp_path / "p/params.yaml").write_text(text.replace("report_to: []", "report_to: [trackio]"))
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "stages.train"]
    done = subprocess.run(command, cwd=tmp_path / "p", env=environment, capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr == (
        "error: train.report_to names trackio, which is not installed: `pip install trackio`, or take it off the list\n"
    )


def test_a_logger_that_is_not_known_is_an_error_of_the_parameters(tmp_path: Path) -> None:
    text = (ROOT / "params.yaml").read_text()
    assert "report_to: []" in text
    (tmp_path / "params.yaml").write_text(text.replace("report_to: []", "report_to: [tensorbord]"))
    with pytest.raises(UserError, match=r"train.report_to.0 is 'tensorbord'.*'tensorboard', 'wandb'"):
        load(tmp_path / "params.yaml")
