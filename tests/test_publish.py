"""`comat publish`: what is put together, what is sent, and that no message holds the token."""

from __future__ import annotations

import base64
import http.server
import json
import re
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from huggingface_hub import ModelCard, constants
from PIL import Image

from comat.cli import app
from comat.errors import UserError
from comat.finished.publish import check_name
from tests.test_cli import CliRunner

TOKEN = "hf_" + "secret" * 5


class Hub(http.server.ThreadingHTTPServer):
    """Takes repositories and commits as the hub does, and remembers them; one that is called `full` it refuses."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Answer)
        self.url = f"http://127.0.0.1:{self.server_port}"
        self.made: list[dict] = []
        self.files: dict[str, bytes] = {}
        self.tokens: set[str | None] = set()


class _Answer(http.server.BaseHTTPRequestHandler):
    server: Hub

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"] or 0))
        self.server.tokens.add(self.headers.get("Authorization"))
        if self.path == "/api/repos/create":
            self.server.made.append(json.loads(body))
            return self.answer({"url": f"{self.server.url}/ada/shapes"})
        if self.path == "/api/validate-yaml":
            return self.answer({"errors": [], "warnings": []})
        if "/full/" in self.path:
            return self.answer({"error": f"storage is full for {self.headers['Authorization']}"}, 403)
        if "/preupload/" in self.path:
            asked = json.loads(body)["files"]
            return self.answer(
                {"files": [{"path": one["path"], "uploadMode": "regular", "shouldIgnore": False} for one in asked]}
            )
        assert "/commit/" in self.path
        for line in body.decode().splitlines():
            entry = json.loads(line)
            if entry["key"] == "file":
                self.server.files[entry["value"]["path"]] = base64.b64decode(entry["value"]["content"])
        commit = "0" * 40
        url = f"{self.server.url}/ada/shapes/commit/{commit}"
        return self.answer({"success": True, "commitUrl": url, "commitOid": commit})

    def do_GET(self) -> None:
        self.answer({"error": "not found"}, 404)

    def answer(self, value: dict, status: int = 200) -> None:
        data = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    server = Hub()
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setattr(constants, "ENDPOINT", server.url)
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture
def finished(project: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The project in which every stage has run, with a lock as DVC writes one."""
    monkeypatch.chdir(project)
    if not (project / "dvc.lock").exists():
        (project / "dvc.lock").write_text("schema: '2.0'\n")
    return project


def call(*words: str):
    return CliRunner().invoke(app, ["publish", *words])


def test_a_dry_run_puts_all_together_and_sends_nothing(finished: Path, hub: Hub, tmp_path: Path) -> None:
    result = call("ada/shapes", "--dry-run", "--folder", str(tmp_path / "out"))
    assert result.exit_code == 0 and "nothing was sent to ada/shapes" in result.stdout, result.output
    out = tmp_path / "out"
    found = {path.relative_to(out).as_posix() for path in out.rglob("*") if path.is_file()}
    expected = {"README.md", "report.html", "params.yaml", "dvc.lock", "pytorch_lora_weights.safetensors"}
    assert expected | {"unet/config.json", "unet/diffusion_pytorch_model.safetensors"} <= found
    assert not hub.made and not hub.tokens
    for name in found:
        assert name in result.stdout
    assert (out / "report.html").read_bytes() == (finished / "data/evaluate/report.html").read_bytes()
    text = ModelCard.load(out / "README.md").text
    assert "## What it was trained on" in text and "t2i: " in text and "prompts" in text
    code = re.search(r"```python\n(.*?)```", text, re.DOTALL)[1]
    assert 'lora = "ada/shapes"\n' in code and 'from_pretrained("ada/shapes", subfolder="unet"' in code
    assert "data/train" not in code and "data/warmup" not in text
    shown = re.findall(r"\]\((gallery/[^)]+)\)", text)
    assert {name for name in found if name.startswith("gallery/")} == set(shown)
    for place in shown:
        assert Image.open(out / place).size == (522, 256)


def test_the_commit_holds_every_file_and_no_log_the_token(
    finished: Path, hub: Hub, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    result = call("ada/shapes", "--folder", str(tmp_path / "out"), "--private")
    assert result.exit_code == 0 and result.stdout.splitlines()[-1] == f"{hub.url}/ada/shapes", result.output
    (made,) = hub.made
    assert (made["name"], made["organization"]) == ("shapes", "ada")
    assert made.get("private") is True or made.get("visibility") == "private"  # by the client's version
    out = tmp_path / "out"
    assert hub.files == {
        path.relative_to(out).as_posix(): path.read_bytes() for path in out.rglob("*") if path.is_file()
    }
    assert hub.tokens == {f"Bearer {TOKEN}"}
    assert TOKEN not in result.output + caplog.text and all(TOKEN.encode() not in data for data in hub.files.values())


def test_a_refusal_is_one_line_without_the_token(finished: Path, hub: Hub) -> None:
    result = call("ada/full")
    assert result.exit_code == 1 and result.stderr.splitlines()[-1].startswith("error: ada/full: the hub does not take")
    assert TOKEN not in result.output and "secret" not in result.output


def test_nobody_logged_in_a_bad_name_a_full_folder_an_unfinished_run(
    finished: Path, hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mine").write_text("")
    cases = {
        "there is something already": ("ada/shapes", "--folder", str(tmp_path)),
        "expected USER/NAME": ("shapes",),
        "give USER/NAME": ("a b/shapes",),
        "expected both; run `dvc repro` first": ("ada/shapes", "--data", str(tmp_path)),
    }
    for message, words in cases.items():
        result = call(*words)
        assert result.exit_code == 1 and message in result.stderr
    monkeypatch.delenv("HF_TOKEN")
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "token"))
    nobody = call("ada/shapes", "--folder", str(tmp_path / "new"))
    assert "nobody is logged in to the hub" in nobody.stderr and not (tmp_path / "new").exists()
    assert not hub.made
    with pytest.raises(UserError, match="expected USER/NAME"):
        check_name("ada")
