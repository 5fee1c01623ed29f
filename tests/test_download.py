"""Published corpora over HTTP, from a server on this machine that misbehaves as real ones do; and from a folder."""

from __future__ import annotations

import hashlib
import socket
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from comat.corpora.download import BLOCK, Patience, download, session
from comat.corpora.fetch import Published, fetch, published
from comat.errors import UserError
from tests.conftest import ROOT, run

HALF = 2 * BLOCK
BODY = (b"a red ball and a blue cube\n" * HALF)[: 2 * HALF - 100]
PATIENCE = Patience(attempts=3, backoff=0.0, connect=2.0, stall=0.3)


class Upstream:
    """A server that has `BODY` at every path; `faults` says what goes wrong with the next requests, in turn."""

    def __init__(self) -> None:
        self.faults: list[str] = []
        self.ranges: list[str | None] = []
        self.done = threading.Event()
        upstream = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                upstream.answer(self)

            def log_message(self, *args: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True).start()

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        wanted = request.headers["Range"]
        self.ranges.append(wanted)
        fault = self.faults.pop(0) if self.faults else ""
        if fault.isdigit():
            request.send_error(int(fault))
            return
        body = {"other": b"<html>log in first</html>", "endless": BODY * 40}.get(fault, BODY)
        start = int(wanted.removeprefix("bytes=").rstrip("-")) if wanted and fault != "no ranges" else 0
        request.send_response(206 if start else 200)
        request.send_header("Content-Length", str(len(body) - start))
        request.end_headers()
        if fault in ("truncated", "stalled", "nothing"):
            request.wfile.write(b"" if fault == "nothing" else body[start : start + HALF])
            request.wfile.flush()
            if fault == "stalled":
                self.done.wait(5)
        else:
            request.wfile.write(body[start:])

    def close(self) -> None:
        self.done.set()
        self.server.shutdown()
        self.server.server_close()


@pytest.fixture
def upstream() -> Iterator[Upstream]:
    server = Upstream()
    yield server
    server.close()


def get(upstream: Upstream, target: Path) -> None:
    with session(PATIENCE) as http:
        digest = hashlib.sha256(BODY).hexdigest()
        download(http, f"{upstream.url}/list.txt", target, len(BODY), digest, PATIENCE)


@pytest.mark.parametrize(
    ("faults", "ranges"),
    [
        ([], [None]),
        (["truncated"], [None, f"bytes={HALF}-"]),
        (["stalled"], [None, f"bytes={HALF}-"]),
        (["truncated", "no ranges"], [None, f"bytes={HALF}-"]),
        (["503", "429"], [None, None, None]),
        (["truncated", "416"], [None, f"bytes={HALF}-", None]),
    ],
)
def test_a_file_arrives_whole_in_spite_of(
    faults: list[str], ranges: list[str | None], upstream: Upstream, tmp_path: Path
) -> None:
    upstream.faults = list(faults)
    get(upstream, tmp_path / "list.txt")
    assert (tmp_path / "list.txt").read_bytes() == BODY
    assert [file.name for file in tmp_path.iterdir()] == ["list.txt"]
    assert upstream.ranges == ranges


def test_a_stalled_connection_is_given_up_in_time(upstream: Upstream, tmp_path: Path) -> None:
    upstream.faults = ["stalled"]
    start = time.monotonic()
    get(upstream, tmp_path / "list.txt")
    assert time.monotonic() - start < 3  # the server would hold the line for 5 s


def test_what_has_arrived_serves_the_next_run(upstream: Upstream, tmp_path: Path) -> None:
    """Each attempt but the first gets nothing new; the second run asks for the other half alone."""
    upstream.faults = ["truncated", "nothing", "nothing"]
    with pytest.raises(UserError, match=f"broke off after {HALF} of {len(BODY)} bytes"):
        get(upstream, tmp_path / "list.txt")
    upstream.ranges = []
    get(upstream, tmp_path / "list.txt")
    assert (tmp_path / "list.txt").read_bytes() == BODY
    assert upstream.ranges == [f"bytes={HALF}-"]


def test_another_file_is_refused_at_once_and_leaves_nothing(upstream: Upstream, tmp_path: Path) -> None:
    upstream.faults = ["other"]
    with pytest.raises(UserError, match=f"got 25 bytes with sha256 .* expected {len(BODY)} bytes with"):
        get(upstream, tmp_path / "list.txt")
    assert not list(tmp_path.iterdir())
    assert len(upstream.ranges) == 1


def test_a_body_without_end_is_not_read_to_its_end(upstream: Upstream, tmp_path: Path) -> None:
    upstream.faults = ["endless"]
    with pytest.raises(UserError, match=r"got \d+ bytes") as error:
        get(upstream, tmp_path / "list.txt")
    assert int(str(error.value).split("got ")[1].split()[0]) <= len(BODY) + BLOCK


def test_spoiled_bytes_of_an_earlier_run_are_thrown_away(upstream: Upstream, tmp_path: Path) -> None:
    (tmp_path / "list.txt.part").write_bytes(b"x" * HALF)
    get(upstream, tmp_path / "list.txt")
    assert (tmp_path / "list.txt").read_bytes() == BODY
    assert upstream.ranges == [f"bytes={HALF}-", None]


def test_a_file_that_is_gone_is_not_asked_for_again(upstream: Upstream, tmp_path: Path) -> None:
    upstream.faults = ["404"]
    with pytest.raises(UserError, match=r"list\.txt: the server answers 404 .*corpora\.source"):
        get(upstream, tmp_path / "list.txt")
    assert len(upstream.ranges) == 1


def test_a_server_that_stays_busy_is_named(upstream: Upstream, tmp_path: Path) -> None:
    upstream.faults = ["503"] * 3
    with pytest.raises(UserError, match="the server answers 503"):
        get(upstream, tmp_path / "list.txt")
    assert len(upstream.ranges) == 3


def test_without_network_the_remedy_is_said(tmp_path: Path) -> None:
    """A port that nobody listens on stands for a network that is not there."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}/list.txt"
    with session(PATIENCE) as http, pytest.raises(UserError, match=r"cannot reach 127.*corpora\.source"):
        download(http, url, tmp_path / "list.txt", 1, "0" * 64, PATIENCE)


def corpus(url: str) -> Published:
    file = {"bytes": len(BODY), "sha256": hashlib.sha256(BODY).hexdigest()}
    files = {"a.txt": file, "deep/b.txt": file}
    return Published.model_validate({"folder": "lists", "url": url, "licence": "MIT", "files": files})


def test_files_that_are_there_are_not_fetched_again(upstream: Upstream, tmp_path: Path) -> None:
    manifest = fetch([corpus(upstream.url)], None, tmp_path, PATIENCE)
    assert (tmp_path / "lists/deep/b.txt").read_bytes() == BODY
    assert set(manifest["lists"]) == {"url", "licence", "files"}
    (tmp_path / "lists/a.txt").write_bytes(b"spoiled")
    fetch([corpus(upstream.url)], None, tmp_path, PATIENCE)
    assert (tmp_path / "lists/a.txt").read_bytes() == BODY
    assert len(upstream.ranges) == 3


def test_a_folder_of_the_users_is_held_to_the_same_files(tmp_path: Path) -> None:
    """No server is there: the url is none."""
    source, out = tmp_path / "mine", tmp_path / "out"
    (source / "lists/deep").mkdir(parents=True)
    (source / "lists/a.txt").write_bytes(BODY)
    with pytest.raises(UserError, match=r"deep/b\.txt: no such file"):
        fetch([corpus("nowhere://")], source, out)
    (source / "lists/deep/b.txt").write_bytes(BODY.replace(b"\n", b"\r\n"))
    with pytest.raises(UserError, match=r"deep/b\.txt: .* not the published file"):
        fetch([corpus("nowhere://")], source, out)
    (source / "lists/deep/b.txt").write_bytes(BODY)
    fetch([corpus("nowhere://")], source, out)
    assert (out / "lists/deep/b.txt").read_bytes() == BODY


def test_the_list_of_published_files() -> None:
    """Twelve lists of T2I-CompBench, ten CSVs of HRS-Bench, one list of ABC-6K, each at a whole commit id."""
    found = published()
    assert {name: len(entry.files) for name, entry in found.items()} == {"t2i_compbench": 12, "hrs": 10, "abc6k": 1}
    for entry in found.values():
        assert [part for part in entry.url.split("/") if len(part) == 40 and int(part, 16)]


def test_the_stage_says_what_a_folder_lacks_in_one_line(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    values = YAML(typ="safe").load((ROOT / "params.yaml").read_text())
    values["corpora"] = {"fetch": ["abc6k"], "source": "mine"}
    YAML().dump(values, tmp_path / "params.yaml")
    with pytest.raises(SystemExit):
        run("corpora", tmp_path)
    assert "error: mine/abc-6k/ABC-6K.txt: no such file" in capsys.readouterr().err
    assert not (tmp_path / "data").exists()
