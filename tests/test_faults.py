"""What a stage makes of a damaged state, a killed run's leftovers, a full disk, a folder it may not write, a signal."""

from __future__ import annotations

import csv
import os
import platform
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from comat.errors import UserError
from comat.estimate.cost import _Live
from comat.running.stage import publish, written_whole
from comat.running.workdir import work_directory
from comat.samples.draw import draw_base
from comat.storage.tables import IMAGE_INDEX, read_table
from comat.training.checkpoint import read_state, write_state
from tests.conftest import ROOT, run
from tests.test_bad_input import error_of
from tests.test_stages import params_of, trainer

NAMESPACE = ["unshare", "--user", "--map-root-user", "--mount"]
OWN_MOUNTS = shutil.which("unshare") and subprocess.run([*NAMESPACE, "true"], capture_output=True).returncode == 0
needs_mounts = pytest.mark.skipif(not OWN_MOUNTS, reason="this machine gives no mount namespace of one's own")


def flip(path: Path, place: int = -1) -> None:
    """Change one bit of a file."""
    data = bytearray(path.read_bytes())
    data[place] ^= 1
    path.write_bytes(data)


def test_a_state_comes_back_as_it_was_written(tmp_path: Path) -> None:
    tensors = {
        "a": torch.randn(2, 3),
        "b": torch.tensor(7),
        "c": torch.ones(2, dtype=torch.bfloat16),
        "d": torch.ones(0),
    }
    write_state(tmp_path / "s", tensors, {"rows": [{"loss": float("inf")}], "step": 3})
    found, notes = read_state(tmp_path / "s")
    assert notes == {"rows": [{"loss": float("inf")}], "step": 3}
    assert found.keys() == tensors.keys()
    assert all(torch.equal(found[name], value) and found[name].dtype == value.dtype for name, value in tensors.items())


def test_a_state_is_written_a_tensor_at_a_time(tmp_path: Path) -> None:
    """Tensors whose numbers do not lie in their order, so that each must be copied: ten, of 40 kB each."""
    tensors = {f"t{n}": torch.ones(100, 100).t() for n in range(10)}
    with _Live() as live:
        write_state(tmp_path / "s", tensors, {})
    assert 40_000 <= live.peak <= 2.2 * 40_000
    assert (tmp_path / "s").stat().st_size > 400_000


def test_a_damaged_state_stops_training_with_the_remedy(project: Path, tmp_path: Path) -> None:
    """One bit of a weight, which no format notices; then half a file."""
    trainer(project, tmp_path)._save()
    path = tmp_path / "state.safetensors"
    flip(path)
    for reason in (r"its sha256 differs", r".+"):
        with pytest.raises(UserError, match=rf"{path}: .* truncated or damaged \({reason}\); .* remove the file"):
            trainer(project, tmp_path)
        path.write_bytes(path.read_bytes()[:5000])
    path.unlink()
    assert trainer(project, tmp_path).rows == []


def test_leftovers_of_a_killed_writer_are_not_published(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COMAT_WORK_DIR", str(tmp_path / "work"))
    left = tmp_path / "work/s/abc/sub/.00000.safetensors.77.part"
    left.parent.mkdir(parents=True)
    left.write_text("half")
    (tmp_path / ".out.77.part").mkdir()  # half published
    with work_directory("s", "abc") as work:
        (work / "whole").write_text("1")
        inode = (work / "whole").stat().st_ino
        publish(work, tmp_path / "out")
    assert (tmp_path / "out/whole").stat().st_ino == inode  # linked, not copied
    assert sorted(p.name for p in (tmp_path / "out").rglob("*")) == ["sub", "whole"]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["out", "work"]


def test_samples_of_a_killed_run_are_drawn_again_in_their_whole_batch(project: Path, tmp_path: Path) -> None:
    """Batches of 3 images: in another batch an image may differ in its last bits, so all three are drawn."""
    data, samples = project / "data", project / "data/base_samples"
    shutil.copytree(samples / "images", tmp_path / "images")
    lost, *batch = [tmp_path / row["path"] for row in read_table(samples / "index.parquet", IMAGE_INDEX)][:3]
    lost.unlink()
    for file in batch:
        file.write_bytes(b"of a killed run")
    params = params_of(project)
    draw_base(params, params.samples, data / "prompts", data / "entities", data / "warmup", tmp_path)
    for file in (samples / "images").iterdir():
        assert (tmp_path / "images" / file.name).read_bytes() == file.read_bytes(), file.name


def under(mount: str, folder: Path, *command: str, **environment: str) -> subprocess.CompletedProcess:
    """Run a stage in `folder` after a shell line of mounts that nobody else sees."""
    variables = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", **environment}
    whole = [*NAMESPACE, "sh", "-ec", f'{mount}; exec "$@"', "sh", sys.executable, "-m", *command]
    return subprocess.run(whole, cwd=folder, env=variables, capture_output=True, text=True)


def assert_one_line(done: subprocess.CompletedProcess, *expected: str) -> None:
    assert done.returncode == 1, done.stderr
    assert "Traceback" not in done.stderr
    lines = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1
    assert all(text in lines[0] for text in expected), lines[0]


@pytest.mark.slow
@needs_mounts
@pytest.mark.parametrize("full", ["out", "work"])
def test_a_full_disk_is_said_and_the_run_goes_on_where_there_is_room(broken: Path, full: str) -> None:
    """A file system of two pages: not enough for a shard, its bookkeeping and the index."""
    wanted = {p.name: p.read_bytes() for p in (broken / "data/image_latents").iterdir()}
    before = sorted(p.name for p in broken.iterdir())
    (broken / "small").mkdir()
    places = {"out": "data/image_latents", "work": ".work"} | {full: "small/there"}
    command = ["stages.image_latents", "--out", places["out"]]
    done = under("mount -t tmpfs -o size=8k tmpfs small", broken, *command, COMAT_WORK_DIR=places["work"])
    assert_one_line(done, "No space left on device", "small/there")
    assert {p.name: p.read_bytes() for p in (broken / "data/image_latents").iterdir()} == wanted
    shutil.rmtree(broken / "data/image_latents")
    run("image_latents", broken)
    assert {p.name: p.read_bytes() for p in (broken / "data/image_latents").iterdir()} == wanted
    assert sorted(p.name for p in broken.iterdir()) == sorted({*before, "small", ".work"})


@pytest.mark.slow
@needs_mounts
def test_a_full_disk_for_a_warmed_up_unet_is_said(broken: Path) -> None:
    """Written by safetensors itself, whose error is neither a ValueError nor an OSError."""
    (broken / "small").mkdir()
    done = under("mount -t tmpfs -o size=8k tmpfs small", broken, "stages.warmup", COMAT_WORK_DIR="small")
    assert_one_line(done, "No space left on device", "small/warmup")


@pytest.mark.slow
@needs_mounts
def test_a_read_only_output_folder_is_said_and_nothing_changes(broken: Path) -> None:
    before = {p: p.read_bytes() for p in (broken / "data").rglob("*") if p.is_file()}
    mount = f"mount --bind {broken}/data {broken}/data && mount -o remount,bind,ro {broken}/data"
    for stage in ("prompts", "image_latents"):
        assert_one_line(under(mount, broken, f"stages.{stage}"), "Read-only file system", "data/", stage)
    assert {p: p.read_bytes() for p in (broken / "data").rglob("*") if p.is_file()} == before


def test_a_changed_latent_stops_training(broken: Path, capsys: pytest.CaptureFixture) -> None:
    flip(broken / "data/image_latents/00000.safetensors")
    assert "truncated or was changed (sha256 differs)" in error_of("train", broken, capsys)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_to_the_stage_is_heard_at_once(project: Path, tmp_path: Path, number: signal.Signals) -> None:
    """As Ctrl-C sends it: the stage saves, says where it was and what goes on, and the curves are there."""
    root = tmp_path / "p"
    shutil.copytree(project, root, ignore=shutil.ignore_patterns(".work"))
    shutil.rmtree(root / "data/train")
    text = (root / "params.yaml").read_text()
    assert "train_steps: 4" in text
    (root / "params.yaml").write_text(text.replace("train_steps: 4", "train_steps: 4000"))
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "stages.train"]
    with subprocess.Popen(command, cwd=root, env=environment, stderr=subprocess.PIPE, text=True) as process:
        deadline = time.monotonic() + 120
        while not (root / "data/train/curves.csv").exists() and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.02)
        alive = process.poll() is None
        process.send_signal(number)
        _, said = process.communicate(timeout=60)
    assert alive, said
    assert process.returncode == 128 + number, said
    found = re.search(r"error: interrupted at iteration (\d+) of 4000; `dvc repro` goes on\n$", said)
    assert found and int(found[1]) >= 1
    with (root / "data/train/curves.csv").open() as file:
        assert len([*csv.DictReader(file)]) == int(found[1])


def test_what_fails_half_way_leaves_what_stood_there(tmp_path: Path) -> None:
    """Files and folders are put in place together at the end; what others put there stays."""
    out = tmp_path / "evaluate"
    for text in ("old", "new"):
        with written_whole(out) as part:
            (part / "metrics.json").write_text(text)
            (part / "pictures").mkdir()
            (part / "pictures" / f"{text}.png").write_text(text)
        (out / "plots").mkdir(exist_ok=True)
    machine = platform.node().replace(".", "-")
    (tmp_path / f".evaluate.{machine}.{2**22 + 1}.part").mkdir()  # of a process that is no more
    others = tmp_path / f".evaluate.{machine}-2.{2**22 + 1}.part"  # of another machine, where it may live
    others.mkdir()
    with pytest.raises(OSError, match="full"), written_whole(out) as part:
        (part / "metrics.json").write_text("half")
        raise OSError("full")
    assert (out / "metrics.json").read_text() == "new"
    assert sorted(path.name for path in out.rglob("*")) == ["metrics.json", "new.png", "pictures", "plots"]
    assert sorted(tmp_path.iterdir()) == [others, out]
