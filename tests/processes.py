"""Several processes of one stage without their start-up: forks of the test's own, in a gloo group."""

from __future__ import annotations

import multiprocessing
import os
import socket
import sys
from collections.abc import Callable
from pathlib import Path

FORK = multiprocessing.get_context("fork")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def start(count: int, function: Callable[..., None], *args: object, errors: Path | None = None) -> list:
    """Start `function(*args)` in `count` processes as a launcher would; what they print to stderr goes to `errors`."""
    port = free_port()

    def body(rank: int) -> None:
        os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(count)}
        os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "OMP_NUM_THREADS": "1"}
        if errors:
            sys.stderr = errors.open("a", buffering=1)
        function(*args)

    started = [FORK.Process(target=body, args=(rank,)) for rank in range(count)]
    for process in started:
        process.start()
    return started


def finish(started: list, seconds: float = 60) -> list[int]:
    """Their exit statuses."""
    for process in started:
        process.join(seconds)
    statuses = [process.exitcode for process in started]
    for process in started:
        process.kill()
    return statuses
