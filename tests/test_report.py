"""The report, the page of plots, and what they say and embed."""

from __future__ import annotations

import csv
import html
import json
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from comat.errors import UserError
from comat.evaluation.scores import SCORES
from comat.params import load
from comat.reporting.embed import data_uri
from comat.reporting.html import difference, figure, score
from comat.reporting.pairs import read_shown
from comat.reporting.plots_page import plots_page
from comat.reporting.readings import reading
from comat.reporting.report import Inputs, flat, write_likelihood, write_report
from comat.shapes.world.captions import parse_prompt
from comat.shapes.world.oracle import Detection
from comat.storage.tables import read_table, write_table


class Page(HTMLParser):
    """What a page would fetch, what its images say, which tags stay open, which ids are linked."""

    VOID = ("meta", "img", "input", "br", "link", "hr", "source")

    def __init__(self, text: str) -> None:
        super().__init__()
        self.addresses: list[str] = []
        self.images: list[dict[str, str | None]] = []
        self.open: list[str] = []
        self.ids: set[str | None] = set()
        self.headings: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = dict(attrs)
        self.addresses += [value or "" for name, value in attrs if name in ("src", "href", "srcset", "action")]
        self.ids.add(found.get("id"))
        if tag == "img":
            self.images.append(found)
        if tag in ("h1", "h2", "h3"):
            self.headings.append(tag)
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Elements of SVG that close themselves."""

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_the_report_is_one_whole_file_that_fetches_nothing(evaluated: Path) -> None:
    text = (evaluated / "report.html").read_text(encoding="utf-8")
    page = Page(text)
    assert not page.open and "<script" not in text
    others = [one for one in page.addresses if not one.startswith(("data:image/webp;base64,", "#"))]
    assert all((evaluated / one).is_file() and one == "../train/preview.html" for one in others)
    assert {address[1:] for address in page.addresses if address.startswith("#")} <= page.ids
    assert not re.search(r"url\(|@import|https?://(?!www\.w3\.org)", text)
    assert page.images and all(image["alt"] for image in page.images)
    assert page.headings[0] == "h1" and page.headings.count("h1") == 1
    assert len(text) < 5_000_000


def test_the_report_shows_what_the_results_say(evaluated: Path) -> None:
    text = (evaluated / "report.html").read_text(encoding="utf-8")
    metrics = json.loads((evaluated / "metrics.json").read_text())
    name, rows = next(iter(metrics.items()))
    assert f"CoMat: {rows['total']['base']:.1%} → {rows['total']['tuned']:.1%}" in text and name == "oracle"
    assert '<th scope="col">tuned</th>' in text and not re.search(r">\s*CoMat\s*<", text)
    params = load(evaluated.parent.parent / "params.yaml")
    for key in flat(params.model_dump()):
        assert f'<th scope="row">{key}</th>' in text
    assert torch.__version__ in text and "t2i" in text


@pytest.mark.parametrize(
    ("languages", "said"),
    [
        ({"English": 6}, []),
        ({"English": 3, "German": 2, "Cyrillic script": 1}, ["English 3, German 2, Cyrillic script 1"]),
    ],
)
def test_languages_are_said_where_a_prompt_is_not_english(
    evaluated: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, languages: dict[str, int], said: list[str]
) -> None:
    data = evaluated.parent
    monkeypatch.chdir(data.parent)
    report = json.loads((data / "prompts/report.json").read_text()) | {"languages": languages}
    (tmp_path / "report.json").write_text(json.dumps(report))
    out = shutil.copytree(evaluated, tmp_path / "out")
    inputs = Inputs(tmp_path, data / "train/curves.csv", data / "base_samples", data / "samples")
    write_report(load("params.yaml").model_dump(), "cpu", read_shown(out / "scores.parquet", 20), inputs, out)
    assert re.findall(r"Languages, guessed: (.*?)\.", (out / "report.html").read_text(encoding="utf-8")) == said


@pytest.mark.parametrize(
    ("every", "count", "said"),
    [
        (0, 0, "N prompts to train on, M held out"),
        (
            0,
            1,
            "N prompts to train on, of which 1, drawn by seed, have reference latents and are trained on, M held out",
        ),
        (
            2,
            1,
            "N prompts to train on, of which 1, drawn by seed, have reference latents, 3 set apart for the guard, M",
        ),
    ],
)
def test_prompts_that_do_not_teach_are_said(
    evaluated: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, every: int, count: int, said: str
) -> None:
    data = evaluated.parent
    monkeypatch.chdir(data.parent)
    values = load("params.yaml").model_dump()
    values["train"]["guard"] |= {"every": every, "prompts": 3}
    values["reference_latents"] |= {"count": count}
    out = shutil.copytree(evaluated, tmp_path / "out")
    inputs = Inputs(data / "prompts", data / "train/curves.csv", data / "base_samples", data / "samples")
    write_report(values, "cpu", read_shown(out / "scores.parquet", 20), inputs, out)
    total = json.loads((data / "prompts/report.json").read_text())["total"]
    expected = said.replace("N", str(total["train"])).replace("M", str(total["test"]))
    assert expected in (out / "report.html").read_text(encoding="utf-8")


@pytest.mark.parametrize("asked", [False, True])
def test_where_no_captioner_reads_words_the_report_shows_none(
    evaluated: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, asked: bool
) -> None:
    """A captioner that is asked whether an image shows its prompt: there are pairs that changed, and no words."""
    data, out = evaluated.parent, shutil.copytree(evaluated, tmp_path / "out")
    monkeypatch.chdir(data.parent)
    rows = read_table(out / "scores.parquet", SCORES)
    better = [{**row, "value": float(row["model"] == "tuned")} for row in rows if row["benchmark"] == "oracle"]
    write_table(out / "scores.parquet", better, SCORES)
    shown, params = read_shown(out / "scores.parquet", 20), load("params.yaml")
    assert shown.gains
    write_likelihood(params, params, 4, shown, out)
    if asked:
        changed = {"captioner": "vlm", "captioner_question": 'Is "{prompt}" so?', "captioner_answer": "Yes"}
        write_likelihood(params.model_copy(update=changed), params, 4, shown, out)
        assert json.loads((out / "likelihood.json").read_text()) == {"captioner": None, "images": []}
    inputs = Inputs(data / "prompts", data / "train/curves.csv", data / "base_samples", data / "samples")
    write_report(load("params.yaml").model_dump(), "cpu", shown, inputs, out)
    text = (out / "report.html").read_text(encoding="utf-8")
    parts = [text.count(part) > 0 for part in ('href="#words"', 'id="words"', "word by word", 'class="words"')]
    assert parts == [not asked] * 4 and not Page(text).open
    assert 'class="shot"' in text


CATEGORIES = ["arts & crafts", 'say "cube"', "</style><b>", "größer", "Größer", "a\\22 b"]


def test_the_filter_shows_the_pairs_of_a_category_whatever_it_is_called(evaluated: Path, tmp_path: Path) -> None:
    """The rule of a category hides the cards that do not have its number."""
    rows, data = read_table(evaluated / "scores.parquet", SCORES), evaluated.parent
    ids = sorted({row["prompt_id"] for row in rows})
    twins = [
        {**row, "prompt_id": f"{number}", "category": name, "value": float(row["model"] == "tuned")}
        for number, name in enumerate(CATEGORIES)
        for row in ({**one, "path": str(data.parent / one["path"])} for one in rows)
        if row["benchmark"] == "oracle" and row["prompt_id"] == ids[0]
    ]
    write_table(tmp_path / "scores.parquet", twins, SCORES)
    metrics = json.loads((evaluated / "metrics.json").read_text())["oracle"]["total"]
    (tmp_path / "metrics.json").write_text(json.dumps({"oracle": {name: metrics for name in [*CATEGORIES, "total"]}}))
    (tmp_path / "evaluators.json").write_text("{}")
    shutil.copytree(evaluated / "pictures", tmp_path / "pictures")
    shown = read_shown(tmp_path / "scores.parquet", 20)
    words = [
        {"words": [], "log_p": [], "prompt_id": pair.prompt_id, "seed": pair.seed, "model": model}
        for pair in shown.pairs
        for model in pair.shots
    ]
    (tmp_path / "likelihood.json").write_text(json.dumps({"captioner": "c", "images": words}))
    inputs = Inputs(data / "prompts", data / "train/curves.csv", data / "base_samples", data / "samples")
    write_report(load(data.parent / "params.yaml").model_dump(), "cpu", shown, inputs, tmp_path)
    text = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert not Page(text).open
    numbers = re.findall(r"#only-(\d+):checked\) \.gallery \.pair:not\(\[data-category=\"(\d+)\"\]\)", text)
    assert numbers == [(str(n), str(n)) for n in range(1, len(CATEGORIES) + 1)]
    labels = dict(re.findall(r'id="only-(\d+)"> (.*?)</label>', text))
    gallery = text[text.index('<div class="gallery">') :]
    cards = re.findall(r'data-category="(\d+)".*?<span class="small">([^<]*), seed', gallery, re.DOTALL)
    assert {labels[number] for number, _ in cards} == {name for _, name in cards}
    assert {html.unescape(name) for _, name in cards} == set(CATEGORIES)
    assert set(re.findall(r'class="model (\w+)">(\w+)<', text)) == {("base", "base"), ("tuned", "tuned")}


def test_a_reading_says_what_is_missing_then_what_is_there() -> None:
    def found(noun: str | None, colour: str) -> Detection:
        return Detection(noun, colour, 0.5, 0.5, 0.1)

    spec = parse_prompt("a red star and a blue ball")
    assert reading([found("ball", "orange"), found("ball", "orange"), found(None, "red")], spec) == (
        "no star, two orange balls, a red unknown shape"
    )
    assert reading([], spec) == "no star, no ball" and reading([found("ball", "orange")], spec).endswith(
        "an orange ball"
    )


def test_numbers_read_well() -> None:
    assert (score(0.3407, "%"), score(31.204, "")) == ("34.1%", "31.20")
    assert (difference(0.259, "%"), difference(-0.05, "%"), difference(1.5, "")) == ("+25.9", "−5.0", "+1.50")
    assert (figure(1.0), figure(0.00043), figure(1.57522)) == ("1", "0.00043", "1.575")
    assert flat({"a": 1, "b": {"c": None, "d": "x"}}) == {"a": "1", "b.c": "null", "b.d": "x"}


def test_small_images_are_embedded_exactly_and_large_ones_are_scaled(tmp_path: Path) -> None:
    import base64
    import io

    def opened(uri: str) -> np.ndarray:
        return np.asarray(Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2]))).convert("RGB"))

    pixels = np.random.default_rng(0).integers(0, 255, (16, 16, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "small.png")
    assert (opened(data_uri(tmp_path / "small.png", 320)) == pixels).all()
    Image.new("RGB", (800, 400), "red").save(tmp_path / "large.png")
    assert opened(data_uri(tmp_path / "large.png", 320)).shape == (160, 320, 3)
    (tmp_path / "broken.png").write_bytes(b"nothing")
    with pytest.raises(UserError, match=r"broken\.png: not readable as an image"):
        data_uri(tmp_path / "broken.png", 320)
    with pytest.raises(UserError, match=r"none\.png: this image is missing"):
        data_uri(tmp_path / "none.png", 320)


def test_the_plots_page_brings_its_own_code_and_keeps_the_place_of_the_charts() -> None:
    text = plots_page()
    page = Page(text.replace("{plot_divs}", "<div></div>"))
    assert text.count("{plot_divs}") == 1 and "{scripts}" not in text and not page.addresses and not page.open
    assert "window.vegaEmbed=" in text


def test_every_bar_of_the_categories_has_its_own_label(evaluated: Path) -> None:
    """DVC stacks the bars of equal labels: 32% and 69% would read as 101%."""
    with (evaluated / "categories.csv").open(newline="") as file:
        labels = [row["category"] for row in csv.DictReader(file)]
    assert len(labels) == len(set(labels)) and {"total (base)", "total (tuned)"} <= set(labels)
