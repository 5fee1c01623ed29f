"""The benchmarks: all are there to be run, and that of the GPU runs on the models of the shapes world anywhere."""

from __future__ import annotations

import functools
import importlib
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from ruamel.yaml import YAML
from typer.testing import CliRunner

import benchmarks.methods
import benchmarks.miniature
from benchmarks import colour_words
from benchmarks.miniature import COLUMNS, ROWS, TABLES, experiments, keep_runs, read, tables
from comat.diffusion.backbones import load_base
from comat.params import Params, load
from comat.shapes.world.captions import describe, parse_prompt
from comat.shapes.world.oracle import Detection
from comat.shapes.world.scenes import Group
from tests.conftest import ROOT


@pytest.mark.parametrize("name", sorted(file.stem for file in (ROOT / "benchmarks").glob("*.py")))
def test_a_benchmark_finds_what_it_imports(name: str) -> None:
    """As `python -m benchmarks.<name>`; one that imported its neighbour as a script failed where another called it."""
    importlib.import_module(f"benchmarks.{name}")


@pytest.mark.parametrize("row", ROWS)
def test_every_row_of_the_miniature_tables_has_parameters_that_hold(row: str) -> None:
    """As DVC sets them: YAML values under keys with dots."""
    values = load(ROOT / "params.yaml").model_dump()
    for key, text in ROWS[row].items():
        *sections, last = key.split(".")
        section = functools.reduce(dict.__getitem__, sections, values)
        assert last in section
        section[last] = YAML(typ="safe").load(text)
    Params.model_validate(values)


def test_miniature_tables_take_means_and_ranges_over_seeds() -> None:
    """Total 50 and 60%: 55.0 (50.0 to 60.0); the base of each seed is counted once in a table, whatever its rows."""

    def metrics(tuned: float, base: float = 0.3) -> dict:
        score = {"base": base, "tuned": tuned}
        return {"oracle": dict.fromkeys(COLUMNS, score), "frechet": {"base": 4, "tuned": 2}}

    found = {"ca-s0": metrics(0.5), "ca-s1": metrics(0.6), "ca-ac-s0": metrics(0.7), "strange": metrics(0)}
    found["vlm-s0"] = metrics(0.8, base=0.4)  # in another table
    lines = tables(found).splitlines()
    cells = " | ".join(["55.0 (50.0 to 60.0)"] * 5)
    assert f"| ca | 2 | {cells} | 2.00 (2.00 to 2.00) |" in lines
    assert f"| ca-ac | 1 | {' | '.join(['70.0'] * 5)} | 2.00 |" in lines
    bases = [line[:29] for line in lines if line.startswith("| base")]
    assert bases == ["| base | 2 | 30.0 (30.0 to 30", "| base | 1 | 40.0 | 40.0 | 40"]
    assert "strange" not in "".join(lines)
    assert [line for line in tables({"default-s0": metrics(0.5)}).splitlines() if line in TABLES] == ["parts"]


def test_miniature_runs_that_are_kept_give_the_same_tables(tmp_path: Path) -> None:
    """By `keep`'s CSV, whose values have four digits; and a second `keep` adds to the first."""
    score = {"base": 0.25, "tuned": 0.5}
    first = {"default-s0": {"oracle": dict.fromkeys(COLUMNS, score), "frechet": {"base": 4, "tuned": 2}}}
    second = {"ca-s0": {"oracle": dict.fromkeys(COLUMNS, score | {"tuned": 0.375}), "frechet": {"base": 4, "tuned": 3}}}
    keep_runs(tmp_path / "runs.csv", first)
    keep_runs(tmp_path / "runs.csv", second)
    assert tables(read(tmp_path / "runs.csv")) == tables(first | second)
    assert (tmp_path / "runs.csv").read_text().splitlines()[3] == "default-s0,base,0.25,0.25,0.25,0.25,0.25,4.0"


def test_two_experiments_of_one_name_are_not_chosen_from(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """DVC takes a name again where another commit is the start; which of them is meant only the user knows."""
    git = ["git", "-c", "user.name=x", "-c", "user.email=x@example.org"]
    metrics = tmp_path / "data/evaluate/metrics.json"
    metrics.parent.mkdir(parents=True)
    metrics.write_text('{"oracle": {}}')
    for command in (["init", "-q"], ["add", "."], ["commit", "-qm", "x"]):
        subprocess.run([*git, *command], cwd=tmp_path, check=True)
    monkeypatch.chdir(tmp_path)
    for start in ("a" * 38, "b" * 38):
        subprocess.run(["git", "update-ref", f"refs/exps/cd/{start}/ca-s0", "HEAD"], check=True)
        if start[0] == "a":
            assert experiments() == {"ca-s0": {"oracle": {}}}
    done = CliRunner().invoke(benchmarks.miniature.app, ["keep", "runs.csv"])
    assert done.exit_code == 2 and "two experiments ca-s0" in done.output and not Path("runs.csv").exists()


def test_methods_stand_between_the_base_and_what_is_trained(tmp_path: Path) -> None:
    """A method has no line of the model that it was not drawn with; two seeds 20 and 40%: 30.0 (20.0 to 40.0)."""
    methods, parts = tmp_path / "methods.csv", tmp_path / "parts.csv"

    def metrics(**totals: float) -> dict:
        return {"oracle": dict.fromkeys(COLUMNS, totals), "frechet": totals}

    keep_runs(methods, {f"composable-s{seed}": metrics(base=value) for seed, value in enumerate((0.2, 0.4))})
    keep_runs(methods, {"structured-s0": metrics(base=0.3), "attend_and_excite-s0": metrics(base=0.3, tuned=0.75)})
    keep_runs(parts, {"default-s0": metrics(base=0.25, tuned=0.5), "ca-ac-s0": metrics(base=0.25, tuned=0.6)})
    done = CliRunner().invoke(benchmarks.methods.app, ["show", str(methods), str(parts)])
    assert done.exit_code == 0, done.output
    rows = {line.split(" | ")[0].removeprefix("| "): line.split(" | ")[1:6:4] for line in done.output.splitlines()}
    assert rows["base"] == ["1", "25.0"]
    assert rows["composable"] == ["2", "30.0 (20.0 to 40.0)"]
    assert rows["CoMat"] == ["1", "50.0"]
    assert rows["CoMat and attend_and_excite"] == ["1", "75.0"]
    assert not [name for name in rows if "concept" in name or "ca-ac" in name]
    keep_runs(tmp_path / "one.csv", {"composable-s0": metrics(base=0.2)})  # as far as `draw` came
    done = CliRunner().invoke(benchmarks.methods.app, ["show", str(tmp_path / "one.csv"), str(parts)])
    assert done.exit_code == 0 and "structured" not in done.output
    assert CliRunner().invoke(benchmarks.methods.app, ["show", str(tmp_path / "none"), str(parts)]).exit_code == 2


@pytest.mark.slow
def test_real_size_in_small() -> None:
    command = [sys.executable, "-m", "benchmarks.gpu_real_size", "--small", "--device", "cpu", "--repeats", "1"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    out = subprocess.run(command, cwd=ROOT, env=environment, check=True, capture_output=True, text=True).stdout
    rows = {
        row[0].strip(): [float(cell.rstrip("%")) for cell in row[1:]]
        for row in re.findall(r"^([a-z ]+?) +([\d.]+) +([\d.]+) +([\d.]+) +([\d.]+%)$", out, re.MULTILINE)
    }
    assert set(rows) == {"rollout", "losses on the image", "replay", "discriminator", "optimizer", "iteration"}
    assert all(seconds > 0 and peak > 0 for seconds, peak, _, _ in rows.values())
    assert rows["iteration"][2] == pytest.approx(sum(r[2] for n, r in rows.items() if n != "iteration"), abs=0.003)
    # T = 20 guided steps of 12 samples (the real ones fewer) against K = 5 forward and backward.
    assert rows["rollout"][2] > rows["replay"][2] > rows["discriminator"][2] > 0


@pytest.mark.slow
def test_killed_stages_end_with_the_same_bytes() -> None:
    """Three kills of DVC and its stage in the four stages that end with image_latents; the benchmark takes them all."""
    command = [sys.executable, "-m", "benchmarks.kill", "--kills", "3", "--target", "image_latents"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert len(re.findall(r"killed in \w+", done.stdout)) >= 2  # a moment may lie after the last stage
    assert re.search(r"\d+ files compared: 0 differ", done.stdout)


def test_of_which_words_the_embeddings_are_the_other_prompt_s(tiny: Path) -> None:
    """SDXL's own are "a red ball and a blue cube" behind a start: colours at 2 and 6, nouns at 3 and 7."""
    backbone = load_base(str(tiny / "sdxl"))
    spec, other = parse_prompt("a red ball and a blue cube"), parse_prompt("a green ball and a pink cube")
    own, theirs = (backbone.encode_prompts([describe(one)]) for one in (spec, other))
    for way, columns in {"none": [], "colours": [2, 6], "nouns": [3, 7], "colours and nouns": [2, 3, 6, 7]}.items():
        found = colour_words.mixed(backbone, spec, other, colour_words.WAYS[way])
        expected = own.tokens.clone()
        expected[:, columns] = theirs.tokens[:, columns]
        assert torch.equal(found.tokens, expected) and torch.equal(found.pooled, own.pooled)
    rest = colour_words.mixed(backbone, spec, other, colour_words.WAYS["all but these"])
    assert torch.equal(rest.tokens[:, [2, 3, 6, 7]], own.tokens[:, [2, 3, 6, 7]])
    assert torch.equal(rest.pooled, theirs.pooled) and not torch.equal(rest.tokens, own.tokens)
    every = colour_words.mixed(backbone, spec, other, colour_words.WAYS["all"])
    assert torch.equal(every.tokens, theirs.tokens)


@pytest.mark.parametrize(
    ("colour", "said"),
    [("red", "its own"), ("green", "the other prompt's"), ("black", "another"), (None, "no such object")],
)
def test_whose_colour_an_object_has(colour: str | None, said: str) -> None:
    found = [Detection("ball", colour, 0.5, 0.5, 0.1)] if colour else []
    found.append(Detection("cube", "red", 0.2, 0.2, 0.1))
    assert colour_words.colour_of(found, Group("ball", "red"), Group("ball", "green")) == said
