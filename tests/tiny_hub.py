"""A hub on this machine that serves folders as models or data sets, and remembers what it was asked for."""

from __future__ import annotations

import http.server
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import sha1
from pathlib import Path

COMMIT = "0123456789" * 4


class Hub(http.server.ThreadingHTTPServer):
    """Serves `root/<owner>/<name>`; a model of owner `gated` is refused as the hub refuses gated models."""

    def __init__(self, root: Path) -> None:
        super().__init__(("127.0.0.1", 0), _Answer)
        self.root = root
        self.sent: list[str] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class _Answer(http.server.BaseHTTPRequestHandler):
    server: Hub

    def do_GET(self) -> None:
        parts = self.path.partition("?")[0].strip("/").split("/")
        api = parts[:2] in (["api", "models"], ["api", "datasets"])
        parts = parts[2:] if api else parts[1:] if parts[0] == "datasets" else parts
        if len(parts) < 4:
            return self.answer(404)
        owner, name, kind, revision, *rest = parts
        folder = self.server.root / owner / name
        if owner == "gated":
            return self.answer(403, code="GatedRepo")
        if not folder.is_dir():
            return self.answer(401, code="RepoNotFound")
        if revision not in ("main", COMMIT):
            return self.answer(404, code="RevisionNotFound")
        if kind == "revision":
            return self.answer(200, json.dumps({"id": f"{owner}/{name}", "sha": COMMIT}).encode())
        if kind == "tree":
            return self.answer(200, json.dumps([_listed(folder, path) for path in folder.rglob("*")]).encode())
        data = (folder / "/".join(rest)).read_bytes()
        if self.command == "GET":
            self.server.sent.append("/".join(rest))
        return self.answer(200, data)

    do_HEAD = do_GET

    def answer(self, status: int, data: bytes = b"", code: str = "") -> None:
        self.send_response(status)
        for key, value in {
            "Content-Type": "application/json",
            "Content-Length": str(len(data)),
            "ETag": f'"{sha1(data).hexdigest()}"',
            "X-Repo-Commit": COMMIT,
            **({"X-Error-Code": code} if code else {}),
        }.items():
            self.send_header(key, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(data)

    def log_message(self, *_: object) -> None:
        pass


def _listed(folder: Path, path: Path) -> dict:
    name = path.relative_to(folder).as_posix()
    if path.is_dir():
        return {"type": "directory", "path": name, "oid": "0" * 40}
    return {"type": "file", "path": name, "oid": sha1(path.read_bytes()).hexdigest(), "size": path.stat().st_size}


@contextmanager
def serving(root: Path) -> Iterator[Hub]:
    """A hub that serves the models in `root` while the block runs."""
    hub = Hub(root)
    threading.Thread(target=hub.serve_forever, daemon=True).start()
    try:
        yield hub
    finally:
        hub.shutdown()
        hub.server_close()
