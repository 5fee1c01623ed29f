"""What bars of progress write: as ever on a terminal, few whole lines in a log."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
import termios
import time

from tests.imports import ROOT

BARS = """
import comat
from tqdm import tqdm
import time
for i in tqdm(range(30), desc="slow"):
    for j in tqdm(range(4), desc="quick"):
        time.sleep(0.01)
"""
"""Thirty bars of 0.04 s in one of 1.2 s."""


def environment(**settings: str) -> dict[str, str]:
    others = {name: value for name, value in os.environ.items() if not name.startswith("TQDM_")}
    return others | {"PYTHONPATH": str(ROOT)} | settings


def logged(**settings: str) -> str:
    command = [sys.executable, "-c", BARS]
    return subprocess.run(command, env=environment(**settings), stderr=subprocess.PIPE, text=True, check=True).stderr


def test_a_log_says_nothing_of_what_takes_less_than_half_a_minute() -> None:
    assert logged() == ""


def test_a_log_takes_whole_lines_and_few() -> None:
    """At a third of a second for the half minute: of 1.2 s and more at least two lines, and at most one each third."""
    start = time.monotonic()
    lines = logged(TQDM_DELAY="0.3", TQDM_MININTERVAL="0.3").splitlines()
    took = time.monotonic() - start
    lines = [line.strip("\r") for line in lines if "slow:" in line]
    assert all(line.startswith("slow:") for line in lines)
    assert 2 <= len(lines) <= took / 0.3 + 1
    assert "30/30" in lines[-1] and "\x1b" not in "".join(lines)


def test_on_a_terminal_bars_are_as_ever() -> None:
    ours, theirs = pty.openpty()
    termios.tcsetwinsize(theirs, (24, 80))
    with subprocess.Popen([sys.executable, "-c", BARS], env=environment(), stderr=theirs) as process:
        os.close(theirs)
        written = b""
        try:
            while part := os.read(ours, 4096):
                written += part
        except OSError:  # how the end of a terminal reads on Linux
            pass
    os.close(ours)
    assert process.returncode == 0
    assert written.count(b"slow:") > 5 and written.count(b"quick:") > 30
