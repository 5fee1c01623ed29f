"""What ends a command: one line for the user's and the machine's part, a traceback for ours, and nothing by half."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors import SafetensorError
from tqdm import tqdm

from comat.errors import UserError, clean, explained, main_guard, saving, say, unbroken
from comat.running.device import choose_device
from comat.running.workdir import fingerprint
from tests.imports import ROOT


def ended(error: BaseException) -> int:
    """The exit status of a command that raises `error`."""

    @main_guard
    def command() -> None:
        raise error

    with pytest.raises(SystemExit) as stop:
        command()
    return int(stop.value.code or 0)


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (UserError("a.txt: two\n  lines"), "error: a.txt: two lines"),
        (SafetensorError("header too large"), "error: safetensors: header too large"),
        (httpx.ConnectTimeout("timed out"), "error: httpx: timed out"),
        (
            torch.OutOfMemoryError("CUDA out of memory. Tried"),
            "error: out of memory (CUDA out of memory. Tried); lower",
        ),
        (MemoryError("Unable to allocate 8 GiB"), "error: out of memory (Unable to allocate 8 GiB); lower"),
        (RuntimeError("CUDA error: invalid device ordinal"), "error: the device does not compute (CUDA error: inv"),
        (AssertionError("Torch not compiled with CUDA enabled"), "error: the device does not compute (Torch not"),
        (ModuleNotFoundError("No module named 'spacy_x'", name="spacy_x"), "error: No module named 'spacy_x'; install"),
        (RecursionError("maximum recursion depth"), "error: something that was read is nested too deep"),
        (UserError("key \x1b[31m\u202ered"), "error: key \\x1b[31m\\u202ered"),
    ],
)
def test_what_others_raise_is_one_line(capsys: pytest.CaptureFixture, error: Exception, line: str) -> None:
    assert ended(error) == 1
    shown = capsys.readouterr().err
    assert shown.startswith(line) and shown.count("\n") == 1


@pytest.mark.parametrize(
    "error",
    [
        AssertionError("x"),
        AttributeError("x"),
        KeyError("x"),
        RuntimeError("The size of tensor a must match"),
        ModuleNotFoundError("No module named 'comat.x'", name="comat.x"),
    ],
)
def test_a_bug_keeps_its_traceback(error: Exception) -> None:
    @main_guard
    def command() -> None:
        raise error

    with pytest.raises(type(error)):
        command()


def test_debugging_keeps_every_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COMAT_DEBUG", "1")

    @main_guard
    def command() -> None:
        raise UserError("x")

    with pytest.raises(UserError):
        command()


def test_memory_names_the_parameters_of_its_phase() -> None:
    full = torch.OutOfMemoryError("CUDA out of memory")
    assert "train.device_batch" in str(explained(full, "stages.train"))
    assert "evaluate.batch_size" in str(explained(full, "stages.evaluate"))


def test_an_error_stands_below_the_progress_bar(capsys: pytest.CaptureFixture) -> None:
    @main_guard
    def command() -> None:
        tqdm(total=3, delay=0, bar_format="{l_bar}{bar}{r_bar}").update(1)  # as on a terminal
        raise UserError("it went wrong")

    with pytest.raises(SystemExit):
        command()
    assert "\nerror: it went wrong\n" in capsys.readouterr().err


def script(tmp_path: Path, body: str) -> list[str]:
    lines = ["import time", "from comat.errors import *", "@main_guard", "def main():"]
    text = "\n".join([*lines, *(f"    {line}" for line in body.splitlines()), "main()"])
    (tmp_path / "command.py").write_text(text)
    return [sys.executable, str(tmp_path / "command.py")]


def test_an_ascii_terminal_shows_what_it_can(tmp_path: Path) -> None:
    env = os.environ | {"PYTHONIOENCODING": "ascii", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(script(tmp_path, "print('Fréchet …')"), env=env, capture_output=True)
    assert (done.returncode, done.stdout) == (0, rb"Fr\xe9chet \u2026" + b"\n")


def test_work_goes_on_where_nobody_reads_its_output(tmp_path: Path) -> None:
    body = f"for n in range(20000): print(n)\nopen({str(tmp_path / 'done')!r}, 'w').close()"
    command = subprocess.Popen(
        script(tmp_path, body),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )
    assert command.stdout and command.stderr
    command.stdout.readline()
    command.stdout.close()
    assert (command.wait(60), command.stderr.read()) == (0, b"")
    assert (tmp_path / "done").exists()
    command.stderr.close()


def test_a_full_disk_behind_standard_output_is_said(tmp_path: Path) -> None:
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            script(tmp_path, "print('the result')"),
            stdout=full,
            stderr=subprocess.PIPE,
            env=os.environ | {"PYTHONPATH": str(ROOT)},
        )
    assert done.returncode and b"error: [Errno 28] No space left on device" in done.stderr


class Interrupting:
    """A sequence of numbers; whoever reads one of them is interrupted."""

    def __len__(self) -> int:
        return 3

    def __getitem__(self, index: int) -> float:
        os.kill(os.getpid(), signal.SIGTERM)
        return 1.0


def test_a_signal_that_torch_has_made_a_value_error_of_is_one(capsys: pytest.CaptureFixture) -> None:
    """As when safetensors are read: "could not determine the shape of object type 'torch.storage.UntypedStorage'"."""
    saved = []

    @main_guard
    def command() -> None:
        with saving(lambda: saved.append(1), lambda: "step 2 of 3"):
            torch.tensor(Interrupting())

    with pytest.raises(SystemExit) as stop:
        command()
    assert (stop.value.code, saved) == (143, [1])
    assert capsys.readouterr().err == "error: interrupted at step 2 of 3; `dvc repro` goes on\n"


def test_the_guard_itself_knows_a_signal_that_torch_has_made_a_value_error_of(capsys: pytest.CaptureFixture) -> None:
    @main_guard
    def command() -> None:
        torch.tensor(Interrupting())

    with pytest.raises(SystemExit) as stop:
        command()
    assert stop.value.code == 143
    assert capsys.readouterr().err == "error: interrupted; run it again\n"


def test_what_fails_by_half_beside_a_waiting_signal_is_not_saved(capsys: pytest.CaptureFixture) -> None:
    saved = []

    @main_guard
    def command() -> None:
        with saving(lambda: saved.append(1), lambda: "step 2 of 3"), unbroken():
            os.kill(os.getpid(), signal.SIGTERM)
            raise UserError("half of it is done")

    with pytest.raises(SystemExit) as stop:
        command()
    assert (stop.value.code, saved) == (1, [])
    assert capsys.readouterr().err == "error: half of it is done\n"


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_waits_for_the_end_of_what_must_not_be_done_by_half(
    tmp_path: Path, number: signal.Signals, status: int
) -> None:
    body = (
        "with unbroken():\n    print('in', flush=True)\n    time.sleep(1)\n    print('whole', flush=True)\nprint('on')"
    )
    command = subprocess.Popen(
        script(tmp_path, body),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )
    assert command.stdout
    assert command.stdout.readline() == "in\n"
    command.send_signal(number)
    out, err = command.communicate(timeout=60)
    assert (out, command.returncode) == ("whole\n", status)
    assert err == "error: interrupted; run it again\n"


def test_a_signal_ends_a_wait_at_once(tmp_path: Path) -> None:
    command = subprocess.Popen(
        script(tmp_path, "print('in', flush=True)\ntime.sleep(50)"),
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )
    assert command.stdout
    command.stdout.readline()
    before = time.monotonic()
    command.terminate()
    command.communicate(timeout=30)
    assert command.returncode == 143 and time.monotonic() - before < 20


@given(st.text())
def test_nothing_that_is_shown_controls_the_terminal(text: str) -> None:
    shown = clean(text)
    assert not any(ord(c) < 32 or 0x7F <= ord(c) < 0xA0 or c in "\u2028\u2029\u202e" for c in shown)
    shown.encode()  # no lone surrogate


def test_plain_text_of_any_language_is_shown_as_it_is(capsys: pytest.CaptureFixture) -> None:
    say("un œuf, 赤い 車\n[/b] \x1b[31m")
    assert capsys.readouterr().out == "un œuf, 赤い 車\n[/b] \\x1b[31m\n"
    assert len(clean("x" * 5000, 100)) == 101


def test_a_device_that_is_not_there_is_named() -> None:
    with pytest.raises(UserError, match=r"device is cuda:77, but torch finds \d+ CUDA devices"):
        choose_device("cuda:77")


def test_an_absent_input_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="nowhere: no such file or folder; run the stage that makes it"):
        fingerprint({}, [tmp_path / "nowhere"], code=())
