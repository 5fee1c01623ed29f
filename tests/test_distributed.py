"""The result does not depend on the number of processes, and one that dies ends them all with its reason."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from datetime import timedelta
from pathlib import Path

import psutil
import pytest
import torch
import torch.distributed as dist
from hypothesis import given
from hypothesis import strategies as st
from ruamel.yaml import YAML

from comat.errors import UserError, main_guard
from comat.method.batch import Batch, RealImages
from comat.running.distributed import Processes, _is_first, join
from comat.running.launch import launch_where_asked
from comat.storage.tables import read_safetensors
from tests.conftest import ROOT, run
from tests.processes import finish, free_port, start
from tests.test_replay import TERMS, build, gradient, relative
from tests.test_stages import trainer

TRAINED = ("lora/pytorch_lora_weights.safetensors", "discriminator/discriminator.safetensors", "curves.csv")


def step_once(params, out: Path) -> None:
    """The gradients, those of each term, and values of one step, by all processes together."""
    with join("cpu") as processes:
        step, lora, batch = build(params)
        critic = step.discriminator.trainable_parameters() if step.discriminator else []
        share = batch.share(processes.rank, processes.count)
        of_terms: dict[str, torch.Tensor] = {}

        def look(term: str) -> None:
            processes.sum_gradients(lora, {})
            of_terms[term] = gradient(lora)

        values = processes.sum_gradients([*lora, *critic], step(share, look=look))
        if processes.main:
            none = [w.grad is None for w in lora]
            found = {"lora": gradient(lora), "critic": gradient([*critic, *lora]), **of_terms}
            torch.save({"gradients": found, **values, "none": none}, out)


@pytest.mark.parametrize(("term", "count"), [("sum", 2), ("sum", 5), ("attribute", 5)])
def test_the_gradient_does_not_depend_on_the_number_of_processes(make_params, tmp_path, term: str, count: int) -> None:
    """Three prompts and two real images: on two processes unevenly, of five some have only the one or the other."""
    params = make_params(**TERMS[term])
    step_once(params, tmp_path / "alone")
    assert finish(start(count, step_once, params, tmp_path / "together")) == [0] * count
    alone, together = (torch.load(tmp_path / name) for name in ("alone", "together"))
    assert alone.pop("none") == together.pop("none")
    of_one, of_all = alone.pop("gradients"), together.pop("gradients")
    assert set(of_one) == set(of_all) > {"lora", "critic", "i2t", "adversarial"}
    for name, own in of_one.items():
        assert relative(of_all[name], own) < 1e-5 if own.any() else not of_all[name].any()
    assert together == pytest.approx(alone, rel=1e-5, abs=1e-7)


def receive(out: Path) -> None:
    with join("cpu") as processes:
        own = {"a": torch.arange(6).view(2, 3), "b": torch.tensor(0.5), "c": torch.tensor([1.5]).bfloat16()}
        found = processes.tensors_from_main(own if processes.main else {}, torch.device("cpu"))
        assert [*found] == [*own] and all(torch.equal(found[name], value) for name, value in own.items())
        assert [value.dtype for value in found.values()] == [value.dtype for value in own.values()]
        (out / str(processes.rank)).touch()


def test_tensors_of_the_main_process_reach_the_others(tmp_path: Path) -> None:
    assert finish(start(2, receive, tmp_path)) == [0, 0]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["0", "1"]
    assert Processes().tensors_from_main({"a": torch.ones(1)}, torch.device("cpu")) == {"a": torch.ones(1)}


def wait_for_long_work(way: str) -> None:
    """The main process works for longer than the others would wait for anything that they do together."""
    with join("cpu") as processes:
        dist.distributed_c10d._set_pg_timeout(timedelta(seconds=4))
        for number in range(2):
            asked = (f"look {number}",) if way == "from_main_at_leisure" else ()
            found = getattr(processes, way)(*asked, lambda: time.sleep(8) or os.getpid())
            assert (found == os.getpid()) == processes.main


def test_long_work_of_the_main_process_is_waited_for(tmp_path: Path) -> None:
    assert finish(start(2, wait_for_long_work, "from_main_at_leisure")) == [0, 0]
    assert finish(start(2, wait_for_long_work, "from_main", errors=tmp_path / "stderr")) == [1, 1]
    assert Processes().from_main_at_leisure("look", lambda: 7) == 7


def rows(count: int) -> Batch:
    real = RealImages(torch.arange(count // 2), [f"c{i}" for i in range(count // 2)])
    return Batch(0, [f"p{i}" for i in range(count)], [[]] * count, real=real)


@given(st.integers(0, 20), st.integers(1, 9))
def test_shares_of_a_batch_hold_each_prompt_and_image_once(size: int, count: int) -> None:
    """In the order of processes for prompts, the other way round for images; no two differ by more than one."""
    whole = rows(size)
    shares = [whole.share(rank, count) for rank in range(count)]
    assert [p for share in shares for p in share.prompts] == whole.prompts
    assert [c for share in reversed(shares) for c in share.real.captions] == whole.real.captions
    assert torch.cat([share.real.latents for share in reversed(shares)]).equal(whole.real.latents)
    for share in shares:
        assert whole.prompts[share.first :][: len(share.prompts)] == share.prompts
        assert whole.real.captions[share.first_real :][: len(share.real)] == share.real.captions
        assert (share.size, share.size_real) == (size, size // 2)
    sizes = [len(share.prompts) for share in shares]
    assert max(sizes) - min(sizes) <= 1


def test_one_process_gives_and_takes_everything_itself() -> None:
    alone = Processes()
    assert list(alone.share("abc")) == list("abc")
    assert list(alone.in_order(iter("abc"), 3)) == list("abc")
    assert alone.sum_gradients([], {"loss": 1.5}) == {"loss": 1.5}


def copy(project: Path, root: Path) -> Path:
    shutil.copytree(project, root, ignore=shutil.ignore_patterns(".work"))
    return root


def files(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


@pytest.mark.parametrize("stage", ["warmup_images", "reference_latents", "image_latents", "base_samples", "samples"])
def test_two_processes_leave_the_same_bytes(project: Path, tmp_path: Path, stage: str) -> None:
    root = copy(project, tmp_path / "p")
    shutil.rmtree(root / "data" / stage)
    assert finish(start(2, run, stage, root)) == [0, 0]
    assert files(root / "data" / stage) == files(project / "data" / stage)


@pytest.mark.slow
def test_killed_training_of_two_processes_ends_with_the_same_bytes(project: Path, tmp_path: Path) -> None:
    """The same as two processes that nobody killed, and within rounding the same as one."""
    whole, killed = copy(project, tmp_path / "whole"), copy(project, tmp_path / "killed")
    for root in (whole, killed):
        shutil.rmtree(root / "data/train")
    assert finish(start(2, run, "train", whole)) == [0, 0]
    processes, deadline = start(2, run, "train", killed), time.monotonic() + 60
    while not list((killed / ".work").rglob("state.safetensors")) and time.monotonic() < deadline:
        time.sleep(0.01)
    for process in processes:
        process.kill()
    finish(processes)
    assert not (killed / "data/train/lora").exists()  # curves and pictures are there while they grow
    assert list((killed / ".work").rglob("state.safetensors"))
    assert finish(start(2, run, "train", killed)) == [0, 0]
    for name in TRAINED:
        assert (killed / "data/train" / name).read_bytes() == (whole / "data/train" / name).read_bytes(), name
    ours, theirs = (read_safetensors(root / "data/train" / TRAINED[0]) for root in (whole, project))
    for name, value in theirs.items():
        torch.testing.assert_close(ours[name], value, rtol=1e-2, atol=1e-5)


def follow(project: Path, work: Path, out: Path, other: Path | None) -> None:
    """Train for 20 iterations; writes weights, gradients before clipping, and curves.

    With what `other` run has written every iteration starts from its weights instead of the own ones.
    """
    path = torch.load(other)["before"] if other else None
    with join("cpu") as processes:
        own = trainer(project, work)
        own.p = own.p.model_copy(update={"train_steps": 20})  # on which the learning rate depends
        own.processes, weights, gradients, before = processes, [*own.lora, *own.critic], [], []
        for iteration in range(20):
            if path:
                for weight, value in zip(weights, path[iteration], strict=True):
                    weight.data.copy_(value)
            before.append([w.detach().clone() for w in weights])
            own.optimizer.zero_grad(), own.critic_optimizer.zero_grad()
            batch = own.data.batch(iteration).share(processes.rank, processes.count)
            processes.sum_gradients(weights, own.step(batch))
            gradients.append((gradient(own.lora), gradient(own.critic)))
            if not path:
                own.rows.append({"iteration": iteration, **own.iterate(iteration)})
        if processes.main:
            torch.save({"before": before, "gradients": gradients, "rows": own.rows}, out)


@pytest.mark.slow
def test_twenty_iterations_of_two_processes_follow_those_of_one(project: Path, tmp_path: Path) -> None:
    """Every iteration's gradient at the same weights; and the curves of runs that are left to themselves."""
    follow(project, tmp_path / "alone", tmp_path / "1", None)
    alone = torch.load(tmp_path / "1")
    assert finish(start(2, follow, project, tmp_path / "two", tmp_path / "2", tmp_path / "1"), 600) == [0, 0]
    for ours, theirs in zip(torch.load(tmp_path / "2")["gradients"], alone["gradients"], strict=True):
        assert all(relative(a, b) < 1e-5 for a, b in zip(ours, theirs, strict=True))
    assert finish(start(2, follow, project, tmp_path / "free", tmp_path / "3", None), 600) == [0, 0]
    free = torch.load(tmp_path / "3")
    for ours, theirs in zip(free["rows"], alone["rows"], strict=True):
        assert ours == pytest.approx(theirs, rel=DRIFT, abs=1e-6)


@main_guard
def fail_on_the_last(how: str) -> None:
    with join("cpu") as processes:
        if processes.rank == processes.count - 1:
            if how == "killed":
                os.kill(os.getpid(), signal.SIGKILL)
            raise UserError("the disk is on fire")
        processes.gather(0)
        processes.gather(1)


def test_an_error_on_one_process_is_said_once_and_ends_all(tmp_path: Path) -> None:
    assert finish(start(3, fail_on_the_last, "error", errors=tmp_path / "stderr")) == [1, 1, 1]
    said = [line for line in (tmp_path / "stderr").read_text().splitlines() if line.startswith("error")]
    assert said == ["error: the disk is on fire"]
    assert "Traceback" not in (tmp_path / "stderr").read_text()


def test_a_process_is_silent_where_the_board_has_gone_with_its_keeper() -> None:
    """The keeper may end before the others look who failed first; each would say that it had lost another process."""
    keeper = dist.TCPStore("127.0.0.1", free_port(), is_master=True)
    board = dist.TCPStore("127.0.0.1", keeper.port, is_master=False)
    assert [_is_first(board), _is_first(board)] == [True, False]
    del keeper
    assert not _is_first(board)


def test_a_process_that_is_killed_ends_the_others(tmp_path: Path) -> None:
    before = time.monotonic()
    assert finish(start(2, fail_on_the_last, "killed", errors=tmp_path / "stderr")) == [1, -signal.SIGKILL]
    assert time.monotonic() - before < 60
    assert "error: lost another process of this run" in (tmp_path / "stderr").read_text()


def test_a_certain_device_is_refused_for_several_processes(monkeypatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ValueError, match="device is cuda:1: expected auto, cuda or cpu"), join("cuda:1"):
        pass


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ("distributed_type: FSDP\nnum_processes: 2", "distributed_type is FSDP: every process holds"),
        ("distributed_type: MULTI_GPU\nnum_processes: many", "num_processes is 'many': expected a number"),
        ("- 1", "not a configuration of accelerate"),
        ("a: [", "not a configuration of accelerate"),
    ],
)
def test_a_wrong_configuration_is_one_line(tmp_path: Path, monkeypatch, config: str, message: str) -> None:
    (tmp_path / "accelerate.yaml").write_text(config)
    monkeypatch.setenv("ACCELERATE_CONFIG_FILE", str(tmp_path / "accelerate.yaml"))
    with pytest.raises(ValueError, match=f"accelerate.yaml: .*{message}"):
        launch_where_asked("stages.train")


def test_without_configuration_a_stage_runs_as_it_is(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.delenv("ACCELERATE_CONFIG_FILE")
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    launch_where_asked("stages.train")
    monkeypatch.setenv("ACCELERATE_CONFIG_FILE", str(tmp_path / "none.yaml"))
    with pytest.raises(ValueError, match="no such file, but ACCELERATE_CONFIG_FILE names it"):
        launch_where_asked("stages.train")


def test_a_launcher_that_starts_nothing_is_not_started_again(monkeypatch) -> None:
    monkeypatch.setenv("COMAT_LAUNCHER", "env")
    monkeypatch.setenv("COMAT_LAUNCHED", "1")
    with pytest.raises(ValueError, match=r"env: started stages\.train without RANK and WORLD_SIZE"):
        launch_where_asked("stages.train")


DRIFT = 1e-4
"""Of losses and gradient norms over 20 iterations; 6e-7 was measured. AdamW makes steps of rounding, too."""
CONFIG = """
compute_environment: LOCAL_MACHINE
distributed_type: MULTI_CPU
use_cpu: true
num_processes: 2
num_machines: 1
machine_rank: 0
mixed_precision: 'no'
debug: false
"""


def launch(root: Path, stage: str, **environment: str) -> subprocess.Popen:
    """`python -m stages.<stage>` as DVC runs it, under an accelerate configuration of two processes on the CPU."""
    (root / "accelerate.yaml").write_text(CONFIG)
    settings = {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "ACCELERATE_CONFIG_FILE": "accelerate.yaml"}
    command = [sys.executable, "-m", f"stages.{stage}"]
    return subprocess.Popen(
        command, cwd=root, env={**os.environ, **settings, **environment}, stderr=subprocess.PIPE, text=True
    )


def wait_for_state(root: Path) -> None:
    deadline = time.monotonic() + 300
    while not list((root / ".work").rglob("state.safetensors")):
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.mark.slow
@pytest.mark.parametrize("launcher", ["", f"{sys.executable} -m torch.distributed.run --nproc-per-node 2"])
def test_the_unchanged_command_starts_what_is_configured(project: Path, tmp_path: Path, launcher: str) -> None:
    """By accelerate, or by a launcher of the user's; and a wrong input is said once, by one process, and ends both."""
    root = copy(project, tmp_path / "p")
    shutil.rmtree(root / "data/reference_latents")
    run = launch(root, "reference_latents", COMAT_LAUNCHER=launcher)
    assert run.wait(300) == 0, run.stderr.read()
    assert files(root / "data/reference_latents") == files(project / "data/reference_latents")
    (root / "data/prompts/prompts.parquet").write_bytes(b"no table")
    run = launch(root, "reference_latents", COMAT_LAUNCHER=launcher)
    said = run.communicate(timeout=300)[1]
    assert run.returncode != 0
    assert said.count("error: data/prompts/prompts.parquet: not a whole Parquet table") == 1


@pytest.mark.slow
@pytest.mark.parametrize("victim", ["a process", "the launcher"])
def test_who_is_killed_ends_the_run_within_a_minute(project: Path, tmp_path: Path, victim: str) -> None:
    root = copy(project, tmp_path / "p")
    values = YAML(typ="safe").load((root / "params.yaml").read_text())
    YAML().dump(values | {"train_steps": 1000}, root / "params.yaml")
    run = launch(root, "train")
    wait_for_state(root)
    workers = psutil.Process(run.pid).children()
    assert len(workers) == 2
    start = time.monotonic()
    (run if victim == "the launcher" else workers[-1]).kill()
    if victim == "a process":
        said = run.communicate(timeout=60)[1]
        assert run.returncode == 1
        assert re.search(r"error: process [01] of 2 was ended by SIGKILL \(out of memory\?\)", said)
    assert not psutil.wait_procs(workers, timeout=60)[1]
    assert time.monotonic() - start < 60
