"""Nothing that is read may run: no pickles but as bare weights, no remote code, no shell that parameters reach."""

from __future__ import annotations

import ast
import os
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from ruamel.yaml import YAML

from comat.errors import UserError
from comat.segmenters.weights import read_weights
from tests.imports import ROOT

OWN = ROOT / "comat/shapes/recipe"  # loads nothing but what it has just trained
SOURCES = sorted(
    path
    for folder in ("comat", "stages", "benchmarks")
    for path in (ROOT / folder).rglob("*.py")
    if OWN not in path.parents
)
FORBIDDEN = {
    "eval",
    "exec",
    "os.popen",
    "os.system",
    "subprocess.getoutput",
    "subprocess.getstatusoutput",
    *(f"{module}.{name}" for module in ("pickle", "dill", "joblib", "marshal") for name in ("load", "loads")),
    "pickle.Unpickler",
    "shelve.open",
}


def value(call: ast.Call, keyword: str) -> object:
    """The constant given for a keyword; None where it is absent, Ellipsis where it is no constant."""
    found = next((k.value for k in call.keywords if k.arg == keyword), ast.Constant(None))
    return found.value if isinstance(found, ast.Constant) else ...


def dangers(source: str) -> Iterator[str]:
    """What could run code that somebody else wrote, with its line."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom) and node.module in ("pickle", "dill", "joblib", "marshal", "shelve"):
            yield f"line {node.lineno}: from {node.module} import"
        if isinstance(node, ast.Import) and any(alias.name == "yaml" for alias in node.names):
            yield f"line {node.lineno}: PyYAML, whose load runs what a file says"
        if not isinstance(node, ast.Call):
            continue
        name = ast.unparse(node.func)
        if name in FORBIDDEN:
            yield f"line {node.lineno}: {name}"
        if name == "torch.load" and value(node, "weights_only") is not True:
            yield f"line {node.lineno}: torch.load without weights_only=True"
        weights = name.endswith(".from_pretrained") and not re.search("Tokenizer|Processor|Config", name)
        # Both libraries fall back to pickles where nothing forbids it; `**options` says it elsewhere.
        if weights and value(node, "use_safetensors") is not True and all(k.arg for k in node.keywords):
            yield f"line {node.lineno}: {name} without use_safetensors=True"
        auto = re.search(r"(^|\.)Auto[A-Z]\w*\.from_(pretrained|config)$", name)
        if auto and not name.startswith("AutoPipeline") and value(node, "trust_remote_code") is not False:
            yield f"line {node.lineno}: {name} without trust_remote_code=False, which asks on a terminal"
        if name == "YAML" and value(node, "typ") == "unsafe":
            yield f"line {node.lineno}: unsafe YAML"
        for keyword in ("trust_remote_code", "shell", "allow_pickle"):
            if value(node, keyword) not in (None, False):
                yield f"line {node.lineno}: {name}({keyword}=…)"


@pytest.mark.parametrize(
    "line",
    [
        "torch.load(path)",
        "torch.load(path, weights_only=False)",
        "torch.load(path, weights_only=flag)",
        "AutoModel.from_pretrained(name, trust_remote_code=True)",
        "load(name, trust_remote_code=flag)",
        "subprocess.run(command, shell=True)",
        "os.system(command)",
        "pickle.loads(data)",
        "from pickle import loads",
        "np.load(path, allow_pickle=True)",
        "YAML(typ='unsafe')",
        "eval(text)",
        "import yaml",
        "AutoModel.from_pretrained(name)",
        "AutoTokenizer.from_pretrained(name)",
        "AutoConfig.from_pretrained(name, **options)",
        "transformers.AutoModel.from_config(config)",
    ],
)
def test_the_scan_sees_each_danger(line: str) -> None:
    assert list(dangers(line))


@pytest.mark.parametrize(
    "line", ["torch.load(path, weights_only=True)", "run(command, shell=False)", "model.eval()", "YAML(typ='safe')"]
)
def test_the_scan_sees_none_where_there_is_none(line: str) -> None:
    assert not list(dangers(line))


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_no_source_can_be_made_to_run_what_it_reads(path: Path) -> None:
    assert not list(dangers(path.read_text(encoding="utf-8")))


@pytest.mark.parametrize("file", ["dvc.yaml", "data/shapes/dvc.yaml", "data/shapes/recipe/dvc.yaml"])
def test_no_parameter_reaches_a_shell(file: str) -> None:
    """DVC gives `cmd` to a shell and would fill `${…}` from params.yaml."""
    for stage in YAML(typ="safe").load((ROOT / file).read_text())["stages"].values():
        assert stage["cmd"].startswith("python -m ")
        assert not set("$`;|&<>\n") & set(stage["cmd"])


class Trap:
    """Unpickled, it makes a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> tuple:
        return os.mkdir, (str(self.folder),)


def test_a_pickle_that_would_run_is_refused(tmp_path: Path) -> None:
    torch.save({"weight": Trap(tmp_path / "ran")}, tmp_path / "sam.pth")
    with pytest.raises(UserError, match=r"sam.pth: not readable as weights: .*; download it again"):
        read_weights(str(tmp_path), "sam.pth", None)
    assert not (tmp_path / "ran").exists()
    torch.load(tmp_path / "sam.pth", weights_only=False)
    assert (tmp_path / "ran").exists()  # the trap works
