"""`comat estimate` as a command: what it says, sizes and rates of other cards, and whether a run fits."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from comat.cli import app
from comat.errors import UserError
from comat.estimate.calls import measure
from comat.estimate.card import Card, parse_rate, parse_size
from comat.estimate.memory import Need, needs
from comat.estimate.published import described
from comat.estimate.show import verdict
from comat.params import load
from tests.conftest import ROOT


def test_the_command_says_that_it_estimates(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(project)
    result = CliRunner().invoke(app, ["estimate"])
    assert result.exit_code == 0, result.output
    for words in ("An estimate", "memory of train", "one iteration of train", "reference_latents", "Not in it"):
        assert words in result.stdout


@pytest.mark.parametrize(
    ("text", "value"), [("24GB", 24e9), ("80 GiB", 80 * 2**30), ("512mb", 512e6), ("1.5T", 1.5e12), ("7", 7)]
)
def test_sizes_are_read(text: str, value: float) -> None:
    assert parse_size(text) == value


@pytest.mark.parametrize("text", ["125TFLOP/s", "125 TFLOPS", "0.125PFLOP/s", "125e0TFLOP/s"])
def test_rates_are_read(text: str) -> None:
    if "e" in text.split("T")[0]:
        with pytest.raises(UserError, match="expected a rate"):
            parse_rate(text)
    else:
        assert parse_rate(text) == pytest.approx(125e12)


@pytest.mark.parametrize("text", ["", "GB", "-1GB", "0", "1.2.3GB", "24 GFLOP/s", "\x1b[31m"])
def test_what_is_no_size_is_one_line(text: str) -> None:
    with pytest.raises(UserError, match=r"--device-memory .*: expected a size") as caught:
        parse_size(text)
    assert "\x1b" not in str(caught.value)


def test_the_verdict_says_what_to_lower() -> None:
    own = [Need("warmup", {"activations": 5e9}, {"lower a": 2e9}), Need("train", {"a": 2e9, "b": 1e9})]
    assert "It fits 6.0 GB: the most is 5.0 GB, in warmup" in verdict(own, Card("x", 6 * 10**9))
    over = verdict(own, Card("x", 4 * 10**9))
    assert "does not fit 4.0 GB: warmup needs 5.0 GB: lower a (at most 2.0 GB less)" in over and "train" not in over


def test_another_card_is_planned_for(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(project)
    result = CliRunner().invoke(app, ["estimate", "--device-memory", "1kB", "--rate", "125TFLOP/s"])
    assert result.exit_code == 1 and not result.stderr, result.output
    assert "125,000 GFLOP/s, given)" in result.stdout and "measured" not in result.stdout
    assert "It does not fit 1.0 kB" in result.stdout
    fitting = CliRunner().invoke(app, ["estimate", "--device-memory", "24GB", "--rate", "125TFLOP/s"])
    assert fitting.exit_code == 0 and "It fits 24.0 GB" in fitting.stdout
    wrong = CliRunner().invoke(app, ["estimate", "--device-memory", "much"])
    assert wrong.exit_code == 1 and "expected a size" in wrong.output


def test_another_card_of_no_rate_is_told_from_this_machine(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its memory is the other's; times are by this machine's rate, which the first lines say."""
    monkeypatch.chdir(project)
    result = CliRunner().invoke(app, ["estimate", "--device-memory", "24GB"])
    said = " ".join(result.stdout.split())
    assert "GFLOP/s, measured just now on cpu, beside what else runs there). Times are therefore this machine's" in said
    assert "It fits 24.0 GB" in said


@pytest.mark.slow
def test_the_preset_for_24_gb_fits_24_gb(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with described(load(ROOT / "presets/sdxl-24gb.yaml")) as (own, _):
        found = needs(own, measure(own))
    assert max(need.total for need in found) < 22e9, found  # two of them for the program and the allocator's reserve


def test_the_preset_for_24_gb_says_why_it_differs() -> None:
    """Every line that is not that of presets/sdxl.yaml names what stands there."""
    plain = (ROOT / "presets/sdxl.yaml").read_text().splitlines()
    own = (ROOT / "presets/sdxl-24gb.yaml").read_text().splitlines()
    differing = [line for line in own if line not in plain and not line.startswith("#")]
    assert len(differing) >= 6 and all("# sdxl: " in line for line in differing), differing
    paper, small = (load(ROOT / f"presets/{name}.yaml").model_dump() for name in ("sdxl", "sdxl-24gb"))
    assert {key for key in paper if paper[key] != small[key]} == {"warmup_images", "warmup", "image_latents", "train"}
