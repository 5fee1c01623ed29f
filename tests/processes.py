"""Several processes of one stage without their start-up: forks of a server that has the imports, in a gloo group.

Forks of the test's own process would not do: once its autograd has threads, which a GPU or a compiler gives it, a fork
of it cannot run a backward pass.
"""

from __future__ import annotations

import multiprocessing
import os
import socket
import sys
from collections.abc import Callable
from pathlib import Path

SERVER = multiprocessing.get_context("forkserver")
SERVER.set_forkserver_preload(["tests.test_distributed"])


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def start(count: int, function: Callable[..., None], *args: object, errors: Path | None = None) -> list:
    """Start `function(*args)` in `count` processes as a launcher would; what they print to stderr goes to `errors`."""
    shared = {"WORLD_SIZE": str(count), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
    shared["COMAT_JUDGED_DIR"] = os.environ["COMAT_JUDGED_DIR"]  # the server's own is of the test that started it
    started = []
    for rank in range(count):
        environment = shared | {"RANK": str(rank), "LOCAL_RANK": str(rank), "OMP_NUM_THREADS": "1"}
        started.append(SERVER.Process(target=_body, args=(environment, errors, function, args)))
        started[-1].start()
    return started


def _body(environment: dict[str, str], errors: Path | None, function: Callable[..., None], args: tuple) -> None:
    os.environ |= environment
    if errors:
        sys.stderr = errors.open("a", buffering=1)
    function(*args)


def finish(started: list, seconds: float = 60) -> list[int]:
    """Their exit statuses."""
    for process in started:
        process.join(seconds)
    statuses = [process.exitcode for process in started]
    for process in started:
        process.kill()
    return statuses
