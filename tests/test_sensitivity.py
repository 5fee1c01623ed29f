"""The sensitivity score (Eq. 7): its arithmetic by hand, and the command from images to table."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from PIL import Image
from ruamel.yaml import YAML
from torch import Tensor
from typer.testing import CliRunner

from comat.cli import app
from comat.errors import UserError
from comat.evaluation.captioned import captioned_images
from comat.evaluation.sensitivity import ROWS, best, sensitivity, summary
from comat.evaluation.statistics import mean_interval
from comat.params import SHOWS
from comat.reporting.sensitivity import sensitivity_table
from comat.storage.tables import IMAGE_INDEX, PROMPTS, read_table, write_table
from tests.imports import ROOT
from tests.tiny_models import one_captioner

RUN = CliRunner()


def test_eq_7_by_hand() -> None:
    """(-2 - -3) / 2 = 0.5; the corrupted caption likelier: (-2 - -1) / 2 = -0.5."""
    assert sensitivity(-2.0, -3.0) == 0.5
    assert sensitivity(-2.0, -1.0) == -0.5


def test_who_is_certain_is_not_divided_by_nothing() -> None:
    """A caption of probability 1 in float32, the corrupted one of log p -2: as if log p were -1e-6."""
    assert sensitivity(0.0, -2.0) == pytest.approx(2e6)


def row(image: str, corruption: str, log_p: float, other: float | None, captioner: str = "blip") -> dict:
    found = None if other is None else sensitivity(log_p, other)
    text = None if other is None else "wrong"
    return {
        "captioner": captioner,
        "image": image,
        "corruption": corruption,
        "corrupted": text,
        "log_p": log_p,
        "log_p_corrupted": other,
        "sensitivity": found,
    }


def test_the_summary_by_hand() -> None:
    """Attribute: 0.5 and -0.5, one of two wins. Quantity: 1 of one image. Relation: never possible.

    All: (0.5 - 0.5 + 1) / 3 = 1/3. Two images are too few for an interval.
    """
    rows = [row("a", "attribute", -2, -3), row("b", "attribute", -2, -1), row("a", "quantity", -2, -4)]
    rows += [row("b", "quantity", -2, None), row("a", "relation", -2, None), row("b", "relation", -2, None)]
    found = summary(rows, 2000, 0)
    assert found["attribute"] == {"mean": 0.0, "low": None, "high": None, "true_wins": 0.5, "n": 2, "left_out": 0}
    assert found["quantity"] == {"mean": 1.0, "low": None, "high": None, "true_wins": 1.0, "n": 1, "left_out": 1}
    assert found["relation"] == {"mean": None, "low": None, "high": None, "true_wins": None, "n": 0, "left_out": 2}
    assert found["all"]["mean"] == pytest.approx(1 / 3)
    assert (found["all"]["low"], found["all"]["high"]) == (None, None)


def test_ten_images_have_an_interval_and_nine_have_none() -> None:
    """Each image has 0.5 and 1.5: its mean is 1 however images are drawn; twenty independent values would vary."""
    rows = [row(str(n), name, -2, other) for n in range(10) for name, other in (("attribute", -3), ("quantity", -5))]
    ten, nine = summary(rows, 200, 0), summary(rows[:18], 200, 0)
    assert (ten["all"]["mean"], ten["all"]["low"], ten["all"]["high"]) == (1.0, 1.0, 1.0)
    assert (nine["all"]["mean"], nine["all"]["low"], nine["all"]["high"]) == (1.0, None, None)


def test_who_teaches_best_by_hand() -> None:
    """By how often the true caption wins, whatever the scale of the likelihoods.

    Attributes: blip on all ten images, vqa on the four called b, so +60%. Quantities: vqa on the six called a, blip on
    the others, so vqa by 20%, which ten images do not tell. No relation can be corrupted, so nothing is said of it. Of
    two images of the ten nothing is sure.
    """
    rows = []
    for n, kind in enumerate("abababaaba"):
        image, first = f"{kind}{n}", kind == "a"
        rows += [row(image, "attribute", -2, -3), row(image, "relation", -2, None)]
        rows += [row(image, "quantity", -1, -1 if first else -1.5)]
        rows += [row(image, "attribute", -4e-6, -3e-6 if first else -1, "vqa"), row(image, "relation", -4, None, "vqa")]
        rows += [row(image, "quantity", -1, -2 if first else -1, "vqa")]
    few = best(rows[:12], ["blip", "vqa"], 500, 0)["attribute"]
    assert few == {"captioner": "blip", "over": {"vqa": {"mean": 0.5, "low": None, "high": None}}, "sure": False}
    found = best(rows, ["blip", "vqa"], 500, 0)
    assert set(found) == {"attribute", "quantity", "all"}
    assert found["attribute"]["captioner"] == "blip" and found["attribute"]["sure"]
    over = found["attribute"]["over"]["vqa"]
    assert over["mean"] == pytest.approx(0.6) and 0.2 <= over["low"] < 0.6 < over["high"] <= 1
    unsure = found["quantity"]
    assert (unsure["captioner"], unsure["sure"]) == ("vqa", False)
    over = unsure["over"]["blip"]
    assert over["mean"] == pytest.approx(0.2) and over["low"] < 0 < over["high"]
    captioner = {"kind": "blip", "model": "x@1", "prefix": ""}
    each = {n: {"captioner": captioner, "corruptions": summary(rows[:3], 10, 0)} for n in ("blip", "vqa")}
    table = sensitivity_table({"images": 2, "captioners": each, "best": found}).splitlines()
    assert table[-3].split()[:4] == ["attribute", "blip", "vqa", "+60.0%"]
    assert table[-2].endswith("; not sure")


def test_an_interval_needs_values() -> None:
    with pytest.raises(ValueError, match="at least one: 0, 0"):
        mean_interval([], [], 10, 0)


def test_the_table_shows_what_could_not_be_measured() -> None:
    rows = [row("a", "attribute", -2, -3), row("a", "relation", -2, None)]
    captioner = {"kind": "blip", "model": "x@1", "prefix": ""}
    lines = sensitivity_table({"captioner": captioner, "images": 1, "corruptions": summary(rows, 10, 0)}).splitlines()
    assert lines[0] == "blip x@1, 1 images"
    assert lines[3].split() == ["attribute", "0.5000", "none", "100.0%", "1", "0"]
    assert lines[4].split() == ["relation", "-", "-", "-", "0", "1"]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    texts = ["a red ball on the left of a blue cube", "two green stars", "a pink ring and a black cone", "a red star"]
    rows = [
        {"id": str(i), "text": text, "source": "own", "category": "", "split": "test" if i < 3 else "train"}
        for i, text in enumerate(texts)
    ]
    write_table(tmp_path / "data/prompts/prompts.parquet", rows, PROMPTS)
    return tmp_path / "data"


def run(data: Path, *options: str) -> str:
    out = ["--out", str(data.parent / "out"), "--data", str(data), "--params", str(ROOT / "params.yaml")]
    done = RUN.invoke(app, ["sensitivity", *out, *options])
    assert done.exit_code == 0, done.output
    return done.output


def test_the_shapes_worlds_captioner_knows_its_world(data: Path, monkeypatch) -> None:
    """Three held-out prompts: 2 attribute swaps, 1 relation swap, 3 quantities; the true caption wins each time."""
    monkeypatch.chdir(ROOT)
    assert "100.0%" in run(data)
    result = json.loads((data.parent / "out/sensitivity.json").read_text())
    assert result["captioner"]["model"].startswith("data/shapes/models/captioner@")
    assert {name: (r["n"], r["left_out"], r["true_wins"]) for name, r in result["corruptions"].items()} == {
        "attribute": (2, 1, 1.0),
        "relation": (1, 2, 1.0),
        "quantity": (3, 0, 1.0),
        "all": (6, 3, 1.0),
    }
    rows = read_table(data.parent / "out/rows.parquet", ROWS)
    one = next(r for r in rows if r["image"] == "0" and r["corruption"] == "relation")
    assert one["corrupted"] == "a blue cube on the left of a red ball"
    assert math.isclose(one["sensitivity"], (one["log_p"] - one["log_p_corrupted"]) / -one["log_p"])
    assert run(data, "--batch-size", "1")
    assert [r["sensitivity"] for r in read_table(data.parent / "out/rows.parquet", ROWS) if r["corrupted"]] == (
        pytest.approx([r["sensitivity"] for r in rows if r["corrupted"]], rel=1e-2)
    )


def test_photos_in_cocos_layout(data: Path, monkeypatch) -> None:
    monkeypatch.chdir(ROOT)
    photos = data.parent / "photos"
    photos.mkdir()
    for name, colour in (("1.jpg", "red"), ("2.jpg", "blue")):
        Image.new("RGB", (90, 70), colour).save(photos / name)
    tables = {
        "images": [{"id": i, "file_name": f"{i}.jpg"} for i in (1, 2)],
        "annotations": [{"image_id": i, "caption": "a black dog on a white sofa"} for i in (1, 2)],
    }
    captions = data.parent / "captions.json"
    captions.write_text(json.dumps(tables))
    assert "2 images" in run(data, "--images", str(photos), "--captions", str(captions))
    assert "1 images" in run(data, "--images", str(photos), "--captions", str(captions), "--count", "1")


def test_samples_come_with_their_prompts(tmp_path: Path) -> None:
    """A white and a black image of one prompt: 1 and 0 everywhere."""
    entry = {"model": "base", "prompt_id": "p", "text": "a cat", "source": "s", "category": "c"}
    rows = [{**entry, "seed": seed, "path": f"{seed}.png"} for seed in (0, 1)]
    for entry, shade in zip(rows, ("white", "black"), strict=True):
        Image.new("RGB", (8, 8), shade).save(tmp_path / entry["path"])
    write_table(tmp_path / "index.parquet", rows, IMAGE_INDEX)
    found = list(captioned_images(tmp_path, tmp_path, None, 0, seed=0, resolution=8))
    assert [(one.name, one.caption, one.image.mean().item()) for one in found] == [
        ("0.png", "a cat", 1.0),
        ("1.png", "a cat", 0.0),
    ]


def test_captions_without_images_are_refused(tmp_path: Path) -> None:
    """They were left unread, and renders measured in place of the photos."""
    with pytest.raises(UserError, match=r"captions\.json: captions of which images\? Give --images"):
        captioned_images(tmp_path, None, tmp_path / "captions.json", 0, seed=0, resolution=8)


def test_a_revision_without_its_model_is_refused() -> None:
    result = CliRunner().invoke(app, ["sensitivity", "--revision", "main"])
    assert result.exit_code == 1
    assert "--revision is of --model" in result.stderr


def test_prompts_of_another_world_need_images(data: Path) -> None:
    rows = [{"id": "0", "text": "a dog on the moon", "source": "own", "category": "", "split": "test"}]
    write_table(data / "prompts/prompts.parquet", rows, PROMPTS)
    with pytest.raises(ValueError, match=r"a dog on the moon.*give --images"):
        list(captioned_images(data / "prompts", None, None, 0, seed=0, resolution=64))


def test_no_image_is_an_error(data: Path, monkeypatch) -> None:
    monkeypatch.chdir(ROOT)
    write_table(data / "prompts/prompts.parquet", [], PROMPTS)
    done = RUN.invoke(app, ["sensitivity", "--data", str(data), "--out", str(data.parent / "out")])
    assert done.exit_code == 1
    assert "no image with a caption" in done.stderr
    assert not (data.parent / "out").exists()


def test_what_is_not_a_number_names_captioner_image_and_caption(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Broken:
        def log_likelihood(self, images: Tensor, prompts: Sequence[str]) -> tuple[Tensor, Tensor]:
            log_p = torch.full((len(prompts), 1), torch.nan)
            return log_p, torch.ones_like(log_p, dtype=torch.bool)

    monkeypatch.setattr("comat.evaluation.sensitivity.load_captioners", lambda *own: [Broken()])
    monkeypatch.chdir(ROOT)
    result = RUN.invoke(app, ["sensitivity", "--data", str(data), "--count", "2", "--out", str(data / "nan")])
    assert result.exit_code == 1
    said = " ".join(result.output.split())
    assert "captioner blip: what it says of image" in said and "set precision to fp32" in said
    assert not (data / "nan").exists()


def test_several_captioners_are_compared(data: Path, tiny: Path, monkeypatch) -> None:
    """The shapes world's BLIP, which knows its world, a random LLaVA asked about the caption, and a random CLIP."""
    monkeypatch.chdir(ROOT)
    asks = {"captioner_question": SHOWS, "captioner_answer": "Yes"}
    own = [one_captioner("blip", "data/shapes/models/captioner"), one_captioner("llava", tiny / "llava", **asks)]
    listed = [one.model_dump() for one in (*own, one_captioner("clip_similarity", tiny / "clip"))]
    values = YAML(typ="safe").load((ROOT / "params.yaml").read_text())
    values |= {"captioner": listed, "captioner_model": None}
    YAML().dump(values, data.parent / "params.yaml")
    options = ["--out", str(data.parent / "out"), "--data", str(data), "--params", str(data.parent / "params.yaml")]
    done = RUN.invoke(app, ["sensitivity", *options])
    assert done.exit_code == 0, done.output
    result = json.loads((data.parent / "out/sensitivity.json").read_text())
    assert list(result["captioners"]) == ["blip", "vqa", "clip_similarity"]
    assert {row["captioner"] for row in result["best"].values()} == {"blip"}
    assert set(result["best"]["all"]["over"]) == {"vqa", "clip_similarity"}
    assert not result["best"]["quantity"]["sure"]  # three images are too few to be
    assert "true wins more often than" in done.output and SHOWS in done.output
    refused = RUN.invoke(app, ["sensitivity", *options, "--model", "x"])
    assert refused.exit_code == 1 and "--model takes the place of one captioner" in refused.stderr
