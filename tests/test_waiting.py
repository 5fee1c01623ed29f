"""Waiting has a limit and a line: for a hub that is silent, drips or asks for a day, for processes that never meet."""

from __future__ import annotations

import functools
import os
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from huggingface_hub import constants

from comat.corpora.download import Patience, download, session
from comat.diffusion.backbones import load_base
from comat.errors import UserError
from comat.models.download import find_model
from comat.models.names import ModelName
from comat.models.waiting import Limits, limit_waiting
from tests.conftest import ROOT
from tests.tiny_hub import COMMIT, serving

SHORT = Limits(connect=0.3, read=0.3, window=0.5, least=1000)


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """Short limits, and an empty cache."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    wait_short()
    yield
    limit_waiting.cache_clear()
    limit_waiting()


def wait_short() -> None:
    limit_waiting.cache_clear()
    limit_waiting()  # what `loaded` asks for is done then
    limit_waiting(SHORT)


def ask(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    monkeypatch.setattr(constants, "ENDPOINT", url)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", url + "/{repo_id}/resolve/{revision}/{filename}")


@contextmanager
def server(answer: Callable[[BaseHTTPRequestHandler], None], port: int = 0) -> Iterator[str]:
    """The address of a server that answers GET and HEAD so, at `port` or at one that is free."""

    class Handler(BaseHTTPRequestHandler):
        do_GET = do_HEAD = lambda self: answer(self)

        def log_message(self, *args: object) -> None:
            pass

    found = ThreadingHTTPServer(("127.0.0.1", port), Handler)
    found.daemon_threads = True
    threading.Thread(target=found.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{found.server_port}"
    finally:
        found.shutdown()
        found.server_close()


def nowhere() -> str:
    """An address where nobody listens: a network that is not there."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{free.getsockname()[1]}"


def silent(request: BaseHTTPRequestHandler) -> None:
    time.sleep(5)


def busy(request: BaseHTTPRequestHandler, header: str = "Retry-After", value: str = "86400") -> None:
    request.send_response(429)
    request.send_header(header, value)
    request.send_header("Content-Length", "0")
    request.end_headers()


def dripping(request: BaseHTTPRequestHandler) -> None:
    request.send_response(200)
    request.send_header("Content-Length", "1000000")
    request.end_headers()
    while True:
        request.wfile.write(b" ")
        request.wfile.flush()
        time.sleep(0.05)


@pytest.mark.parametrize("revision", [None, COMMIT])
def test_a_cache_that_was_copied_here_serves_without_a_network(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, revision: str | None
) -> None:
    """The hub's client would try six times for each of the files that the model never had."""
    shutil.copytree(tiny / "sdxl", tmp_path / "served/user/sdxl")
    model = ModelName("base_model", "user/sdxl", revision)
    with serving(tmp_path / "served") as hub:
        ask(monkeypatch, hub.url)
        folder, _ = find_model(model)
    shutil.rmtree(tmp_path / "cache/models--user--sdxl/.no_exist", ignore_errors=True)
    shutil.move(tmp_path / "cache", tmp_path / "elsewhere")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "elsewhere"))
    ask(monkeypatch, nowhere())
    start = time.monotonic()
    assert find_model(model)[0].name == folder.name
    load_base("user/sdxl", COMMIT)
    assert time.monotonic() - start < 8


def test_a_hub_that_never_answers_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    with server(silent) as url:
        ask(monkeypatch, url)
        start = time.monotonic()
        with pytest.raises(UserError, match="the hub cannot be reached and the files are not in its cache"):
            load_base("user/sdxl")
        assert time.monotonic() - start < 5


def test_of_hosts_nothing_is_known_when_limits_are_given(monkeypatch: pytest.MonkeyPatch) -> None:
    """A silent server at an address that another one had before: six attempts are for a hub that has answered."""
    with server(busy) as url:
        ask(monkeypatch, url)
        with pytest.raises(UserError, match="answers 429"):
            load_base("user/sdxl")
    wait_short()
    with server(silent, urlsplit(url).port or 0):
        start = time.monotonic()
        with pytest.raises(UserError, match="the hub cannot be reached"):
            load_base("user/sdxl")
        assert time.monotonic() - start < 5


@pytest.mark.parametrize(("header", "value"), [("Retry-After", "86400"), ("RateLimit", '"api";r=0;t=86400')])
def test_a_hub_that_asks_for_a_day_is_not_waited_for(monkeypatch: pytest.MonkeyPatch, header: str, value: str) -> None:
    with server(functools.partial(busy, header=header, value=value)) as url:
        ask(monkeypatch, url)
        with pytest.raises(UserError, match=r"127\.0\.0\.1:\d+ answers 429 and asks to wait 86400 s; run again"):
            load_base("user/sdxl")


def test_a_hub_that_drips_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    with server(dripping) as url:
        ask(monkeypatch, url)
        with pytest.raises(UserError, match=r"api/models/user/sdxl.*: only \d+ bytes came in \d+ s"):
            find_model(ModelName("base_model", "user/sdxl", None))


def test_a_corpus_is_not_waited_for_either(tmp_path: Path) -> None:
    """The server asks for a day, and is asked three times at once."""
    patience = Patience(attempts=3, backoff=0.0, connect=1, stall=1, busy=0, pace=SHORT)
    fetch = functools.partial(download, target=tmp_path / "a", size=10**6, digest="0", patience=patience)
    start = time.monotonic()
    with session(patience) as http, server(busy) as url, pytest.raises(UserError, match="the server answers 429"):
        fetch(http, url)
    with session(patience) as http, server(dripping) as url, pytest.raises(UserError, match=r"only \d+ bytes came in"):
        fetch(http, url)
    assert time.monotonic() - start < 5


MEETING = """
from datetime import timedelta
from comat.errors import main_guard
from comat.running import distributed

@main_guard
def main():
    distributed.PATIENCE = timedelta(seconds=2)
    with distributed.join("cpu"):
        pass

main()
"""


def test_processes_that_never_meet_are_one_line() -> None:
    """The second of two, where the first was never started."""
    port = nowhere().rpartition(":")[2]
    group = {"WORLD_SIZE": "2", "RANK": "1", "LOCAL_RANK": "1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    run = subprocess.run(
        [sys.executable, "-c", MEETING], env=os.environ | group, cwd=ROOT, capture_output=True, text=True, timeout=120
    )
    assert run.returncode == 1 and "Traceback" not in run.stderr
    assert f"error: the 2 processes of this run did not meet at 127.0.0.1:{port} (" in run.stderr
