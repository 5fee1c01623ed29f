"""`comat publish`: what is put together, what is sent, and that no message holds the token."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import http.server
import json
import re
import shutil
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import ModelCard, constants
from PIL import Image
from ruamel.yaml import YAML

from comat.cli import app
from comat.errors import UserError
from comat.finished.publish import check_name
from comat.finished.recorded import STAGES, check_results
from tests.conftest import ROOT
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
    write_lock(project / "dvc.lock", YAML(typ="safe").load(project / "params.yaml"))
    return project


def pipeline() -> dict[str, dict]:
    return YAML(typ="safe").load(ROOT / "dvc.yaml")["stages"]


def write_lock(path: Path, values: dict) -> None:
    """As DVC records parameters: under each stage and file, keys of sections with dots, sections as they stand."""
    stages: dict[str, dict] = {}
    for stage, own in pipeline().items():
        recorded = {key: at(values, key) for key in own["params"] if isinstance(key, str)}
        stages[stage] = {"cmd": own["cmd"], "params": {"params.yaml": recorded}}
    YAML().dump({"schema": "2.0", "stages": stages}, path)


def at(values: dict, key: str) -> Any:
    for name in key.split("."):
        values = values[name]
    return values


@pytest.fixture
def assembled(finished: Path, tmp_path: Path) -> Callable[..., Any]:
    """Assembles into `pub` with the values of keys replaced: in the parameters, in the lock, or left out there."""

    def assemble(now: dict[str, Any], was: dict[str, Any], left_out: str = "") -> Any:
        for name, changes in (("params.yaml", now), ("was.yaml", was)):
            values = YAML(typ="safe").load(finished / "params.yaml")
            for key, value in changes.items():
                section, _, last = key.rpartition(".")
                (at(values, section) if section else values)[last] = value
            YAML().dump(values, tmp_path / name)
        write_lock(tmp_path / "dvc.lock", YAML(typ="safe").load(tmp_path / "was.yaml"))
        if left_out:
            lock = YAML(typ="safe").load(tmp_path / "dvc.lock")
            del lock["stages"][left_out]
            YAML().dump(lock, tmp_path / "dvc.lock")
        out = ["--dry-run", "--folder", str(tmp_path / "pub")]
        return call("ada/shapes", *out, "--params", str(tmp_path / "params.yaml"))

    return assemble


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


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({}, "N of them to train on, M held out"),
        ({"reference_latents.count": 1}, "N of them to train on, of which 1 drawn by seed, M held out"),
        (
            {"train.guard.every": 2, "train.guard.prompts": 3},
            "N of them to train on, 3 set apart for the guard, M held",
        ),
    ],
)
def test_the_card_says_how_many_prompts_taught(
    finished: Path, assembled: Callable[..., Any], tmp_path: Path, changes: dict[str, object], said: str
) -> None:
    result = assembled(changes, changes)
    assert not result.exit_code, result.output
    total = json.loads((finished / "data/prompts/report.json").read_text())["total"]
    expected = said.replace("N", str(total["train"])).replace("M", str(total["test"]))
    assert expected in (tmp_path / "pub/README.md").read_text()


def test_the_stages_that_are_compared_are_those_of_the_pipeline() -> None:
    assert set(STAGES) == set(pipeline())


@pytest.mark.parametrize(
    ("key", "now", "was", "stage"),
    [
        ("learning_rate", 5e-05, 2e-05, "train"),
        ("train.guard.every", 0, 2, "train"),  # in a section that is recorded under its dotted key
        ("evaluate.bootstrap", 50, 60, "evaluate"),  # in one that is recorded whole
        ("warmup.learning_rate", 1e-05, 2e-05, "warmup"),
        ("samples.batch_size", 2, 3, "samples"),
        ("seed", 0, 7, "train"),  # of those that were run with it the first
        ("prompts.near_duplicate", 0.8, 0.9, "prompts"),
        ("train.preview.prompts", ["a cat"], ["a dog", "a cat"], "train"),
    ],
)
def test_parameters_that_the_run_was_not_made_by_are_not_published(
    assembled: Callable[..., Any], tmp_path: Path, key: str, now: object, was: object, stage: str
) -> None:
    result = assembled({key: now}, {key: was})
    assert result.exit_code == 1 and result.stderr.startswith(f"error: {tmp_path / 'params.yaml'}: {key} is {now!r}, ")
    said = f"the stage {stage} was run with {was!r} ({tmp_path / 'dvc.lock'})"
    assert said in result.stderr and "run `dvc repro`, or put the value back" in result.stderr
    assert not (tmp_path / "pub").exists()


def test_results_of_two_runs_are_not_published_together(finished: Path, tmp_path: Path) -> None:
    """A file of another run, as after `git checkout dvc.lock` alone; a LoRA trained after the evaluation."""
    values = YAML(typ="safe").load(finished / "params.yaml")
    write_lock(tmp_path / "dvc.lock", values)
    whole = YAML(typ="safe").load(tmp_path / "dvc.lock")
    metrics = (finished / "data/evaluate/metrics.json").read_bytes()
    made = [{"path": "data/train/lora", "md5": "1.dir"}]
    for read, md5, said in (
        ("1.dir", hashlib.md5(metrics).hexdigest(), None),
        ("1.dir", "0" * 32, "metrics.json: not what the stage evaluate made by .*dvc.lock; run `dvc checkout`"),
        ("0.dir", hashlib.md5(metrics).hexdigest(), "the stage samples was run with another data/train/lora than"),
    ):
        whole["stages"]["train"]["outs"] = made
        whole["stages"]["samples"]["deps"] = [{"path": "data/train/lora", "md5": read}]
        whole["stages"]["evaluate"]["outs"] = [{"path": "data/evaluate/metrics.json", "md5": md5}]
        YAML().dump(whole, tmp_path / "dvc.lock")
        with contextlib.nullcontext() if said is None else pytest.raises(UserError, match=said):
            check_results(finished / "data", tmp_path / "dvc.lock")


def test_values_that_are_equal_in_another_spelling_are_published(
    assembled: Callable[..., Any], finished: Path, tmp_path: Path
) -> None:
    """1 is 1.0 where a number is asked for; a key that was left out is what it stands for; no stage reads `device`."""
    files = YAML(typ="safe").load(finished / "params.yaml")["samples"]["benchmarks"]
    files = {name: value for name, value in files.items() if name not in ("dsg", "geneval2")}
    now: dict[str, Any] = {"max_grad_norm": 1, "guidance_scale": 7.0, "device": "cpu"}
    now |= {"samples.benchmarks": files | {"dsg": None}}
    was = {"max_grad_norm": 1.0, "guidance_scale": 7, "device": "auto", "samples.benchmarks": files}
    result = assembled(now, was)
    assert result.exit_code == 0, result.output


def test_null_is_not_nothing_said_nor_zero_false(assembled: Callable[..., Any], tmp_path: Path) -> None:
    for key, now, was in (("vae_revision", None, "0" * 40), ("evaluate.captioner", False, True)):
        result = assembled({key: now}, {key: was})
        assert result.exit_code == 1 and f"{key} is {now!r}, but the stage " in result.stderr


def test_a_lock_of_values_that_are_none_any_more_is_compared_as_it_stands(
    assembled: Callable[..., Any], tmp_path: Path
) -> None:
    result = assembled({}, {"train_steps": -1})
    assert result.exit_code == 1 and "train_steps is 4, but the stage train was run with -1" in result.stderr


def test_a_lock_that_does_not_record_the_run(assembled: Callable[..., Any], finished: Path, tmp_path: Path) -> None:
    result = assembled({}, {}, left_out="samples")
    assert result.exit_code == 1 and "that the stage samples was run with, found none; run `dvc repro`" in result.stderr
    for text, message in (
        ("stages: [train]\n", "not as DVC writes it: stages: Input should be a valid dictionary"),
        ("schema: '2.0'\n", "the stage train was run with, found none"),
        ("- [", "not readable as YAML"),
    ):
        (finished / "dvc.lock").write_text(text)
        result = call("ada/shapes", "--dry-run")
        assert result.exit_code == 1 and message in result.stderr and "Traceback" not in result.output


def test_what_ends_early_leaves_nothing_and_is_made_up_for_by_a_second_call(
    finished: Path, hub: Hub, tmp_path: Path
) -> None:
    shutil.copytree(finished / "data", tmp_path / "data")
    report = tmp_path / "data/prompts/report.json"
    report.rename(tmp_path / "report.json")
    place = tmp_path / "there"
    place.mkdir()
    words = ("ada/shapes", "--dry-run", "--data", str(tmp_path / "data"), "--folder", str(place / "pub"))
    result = call(*words)
    assert result.exit_code == 1 and "report.json" in result.stderr and not list(place.iterdir())
    (tmp_path / "report.json").rename(report)
    (place / "pub").mkdir()  # an empty folder is as good as none
    (place / "link").symlink_to("pub")
    result = call(*words[:-1], str(place / "link"))
    assert result.exit_code == 0, result.output
    assert {path.name for path in place.iterdir()} == {"pub", "link"} and (place / "link").is_symlink()
    assert (place / "pub/README.md").is_file() and (place / "pub").stat().st_mode & 0o777 == 0o755
