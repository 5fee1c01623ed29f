"""The report, the model card and what they are drawn from."""

from __future__ import annotations

import csv
import html
import json
import math
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import torch
from huggingface_hub import ModelCard
from PIL import Image

from comat.captioners.blip import Blip
from comat.diffusion.backbones import load_base
from comat.diffusion.lora import add_lora, export_lora
from comat.errors import UserError
from comat.evaluation.likelihood import END, read_words, words_of
from comat.evaluation.scores import SCORES
from comat.models.names import named_models
from comat.params import load
from comat.randomness import generator
from comat.reporting.card import card_data, table, write_card
from comat.reporting.charts import Axis, line_chart, running_mean
from comat.reporting.embed import data_uri
from comat.reporting.html import difference, figure, score
from comat.reporting.pairs import Pair, Shot, in_turns, read_shown, visible_first
from comat.reporting.plots_page import plots_page
from comat.reporting.readings import reading
from comat.reporting.report import Inputs, flat, training_charts, write_report
from comat.shapes.world.captions import parse_prompt
from comat.shapes.world.oracle import Detection
from comat.storage.tables import read_table, write_table
from comat.training.gradients import columns
from tests.conftest import ROOT


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


@pytest.fixture(scope="module")
def evaluated(project: Path) -> Path:
    return project / "data/evaluate"


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
    params = load(evaluated.parent.parent / "params.yaml")
    for key in flat(params.model_dump()):
        assert f'<th scope="row">{key}</th>' in text
    assert torch.__version__ in text and "t2i" in text


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


def row(model: str, prompt: str, value: float, category: str = "c", seed: int = 0) -> dict:
    own = {"benchmark": "oracle", "model": model, "prompt_id": prompt, "text": prompt, "category": category}
    return {**own, "seed": seed, "path": f"{model}/{prompt}.png", "value": value, "details": '{"missing": 1}'}


def test_wins_and_losses_are_of_the_main_benchmark(tmp_path: Path) -> None:
    """Three pairs: +1, -0.5, 0. Another benchmark that says the opposite comes later."""
    values = {"a": (0.0, 1.0), "b": (0.5, 0.0), "c": (1.0, 1.0)}
    rows = [row(model, id, pair[i]) for i, model in enumerate(("base", "tuned")) for id, pair in values.items()]
    rows += [{**one, "benchmark": "other", "value": 1 - one["value"]} for one in rows]
    write_table(tmp_path / "scores.parquet", rows, SCORES)
    for one in rows:
        one["path"] = str(tmp_path / one["path"])
        Path(one["path"]).parent.mkdir(exist_ok=True)
        Image.new("RGB", (8, 8)).save(one["path"])
    write_table(tmp_path / "scores.parquet", rows, SCORES)
    shown = read_shown(tmp_path / "scores.parquet", 5)
    assert ([pair.text for pair in shown.gains], [pair.text for pair in shown.losses]) == (["a"], ["b"])
    assert (shown.benchmark, shown.won, shown.lost, len(shown.every)) == ("oracle", 1, 1, 3)
    assert shown.gains[0].tuned == Shot(tmp_path / "tuned/a.png", 1.0, {"missing": 1})


def test_a_pair_without_its_twin_is_an_error(tmp_path: Path) -> None:
    write_table(tmp_path / "scores.parquet", [row("base", "a", 0.0)], SCORES)
    with pytest.raises(UserError, match="lack their base or tuned twin"):
        read_shown(tmp_path / "scores.parquet", 5)


def test_categories_take_turns_among_equal_gains() -> None:
    """Gains 1 of categories x x y, and one of 2: the 2 first, then x, y, x. A second seed comes after the first."""

    def pair(name: str, category: str, gain: float, seed: int = 0) -> Pair:
        return Pair(name, name, category, seed, Shot(Path(), 0.0, {}), Shot(Path(), gain, {}))

    pairs = [pair("x1", "x", 1, seed=1), pair("x0", "x", 1), pair("y0", "y", 1), pair("z", "x", 2)]
    assert [one.text for one in in_turns(pairs)] == ["z", "x0", "y0", "x1"]
    assert [one.text for one in in_turns(pair(n, "x", g) for n, g in (("little", -0.1), ("much", -1.0)))] == [
        "much",
        "little",
    ]


def test_what_a_person_sees_comes_first_among_equal_gains(tmp_path: Path) -> None:
    """Grey against grey by 3 of 255 is not seen, by 5 it is; a wider gain stays before both."""

    def pair(name: str, gain: float, step: int) -> Pair:
        for model, value in (("base", 100), ("tuned", 100 + step)):
            Image.new("RGB", (64, 64), (value,) * 3).save(tmp_path / f"{name}-{model}.png")
        shots = (Shot(tmp_path / f"{name}-{model}.png", own, {}) for model, own in (("base", 0.0), ("tuned", gain)))
        return Pair(name, name, "c", 0, *shots)

    pairs = [pair("wide", 2, 0), pair("unseen", 1, 3), pair("seen", 1, 5)]
    assert [one.text for one in visible_first(pairs)] == ["wide", "seen", "unseen"]


def test_a_reading_says_what_is_missing_then_what_is_there() -> None:
    def found(noun: str | None, colour: str) -> Detection:
        return Detection(noun, colour, 0.5, 0.5, 0.1, 1.0)

    spec = parse_prompt("a red star and a blue ball")
    assert reading([found("ball", "orange"), found("ball", "orange"), found(None, "red")], spec) == (
        "no star, two orange balls, a red unknown shape"
    )
    assert reading([], spec) == "no star, no ball" and reading([found("ball", "orange")], spec).endswith(
        "an orange ball"
    )


def test_a_running_mean_is_of_what_came_before() -> None:
    assert running_mean([1, 3, math.nan, 5], 2) == [1, 2, 3, 5]
    chart = line_chart("loss", [0, 1], {"loss": [0.0, 1.0]}, window=2)
    assert (chart.lines["loss"], chart.faint["loss"]) == ("0,100 100,50", "0,100 100,0")


def test_an_axis_has_round_ticks_around_its_values() -> None:
    """From 0.3 to 2.6 in about four steps: 0, 0.8, 1.6, 2.4, 3.2 are round; the middle stands at 50%."""
    axis = Axis.around([0.3, 2.6])
    assert axis.low <= 0.3 and axis.high >= 2.6 and len(axis.ticks) >= 3
    assert axis.place((axis.low + axis.high) / 2) == 50
    constant = Axis.around([1.0, 1.0])
    assert constant.low < constant.high


def test_lines_run_from_left_to_right_and_leave_gaps_out() -> None:
    """y = 0, nan, 1 over x = 0, 1, 2: SVG counts from the top, so 0 stands at 100 and 1 at 0."""
    chart = line_chart("loss", [0, 1, 2], {"loss": [0.0, math.nan, 1.0]})
    assert chart.lines["loss"] == "0,100 100,0"


def test_a_training_of_no_iteration_has_no_chart_and_a_part_that_was_off_neither(tmp_path: Path) -> None:
    terms = ",".join(columns())
    head = f"iteration,loss,i2t,attribute,adversarial,discriminator,grad_norm,skipped,{terms}\n"
    (tmp_path / "curves.csv").write_text(head)
    assert training_charts(tmp_path / "curves.csv") == []
    (tmp_path / "curves.csv").write_text(head + "0,1.0,1.0,0.0,0.0,0.0,0.5,0" + "," * len(columns()) + "\n")
    assert [list(chart.lines) for chart in training_charts(tmp_path / "curves.csv")] == [["loss", "i2t"], ["grad_norm"]]


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


def test_tokens_of_a_word_stand_together() -> None:
    """Two tokens of "cube", which has no space before its second; the end stands alone."""
    assert words_of(["a", " cu", "be", ""]) == [[0], [1, 2], [3]]
    assert words_of([" a", ""]) == [[0], [1]]
    assert words_of([""]) == [[0]]


@pytest.mark.parametrize("prefix", ["", "a picture of"])
def test_words_are_those_of_the_prompt_and_sum_to_its_likelihood(tiny: Path, prefix: str) -> None:
    blip = Blip(str(tiny / "blip"), None, prefix, torch.device("cpu"), torch.float32)
    prompts = ["a red ball and a blue cube", "Two stars"]
    images = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    reads = read_words(blip, images, prompts)
    assert [read.words for read in reads] == [[*prompt.lower().split(), END] for prompt in prompts]
    log_p, counts = blip.log_likelihood(images, prompts)
    for read, own, counted in zip(reads, log_p, counts, strict=True):
        assert sum(read.log_p) == pytest.approx(float(own[counted].sum()), abs=1e-3)


@pytest.mark.parametrize("kind", ["git", "llava"])
def test_every_captioner_says_what_its_tokens_stand_for(tiny: Path, kind: str) -> None:
    from comat.captioners.load import load_captioner
    from tests.tiny_models import one_captioner

    captioner = load_captioner(one_captioner(kind, tiny / kind), torch.device("cpu"), torch.float32)
    pieces = captioner.pieces("a red ball")
    _, counts = captioner.log_likelihood(torch.zeros(1, 3, 32, 32), ["a red ball"])
    assert len(pieces) == int(counts.sum()) and "".join(pieces[:-1]) == "a red ball"


def test_the_card_is_one_that_the_hub_reads(evaluated: Path) -> None:
    card = ModelCard.load(evaluated / "model_card/README.md")
    metrics = json.loads((evaluated / "metrics.json").read_text())
    found = {result.dataset_type: result.metric_value for result in card.data.eval_results}
    assert found["oracle-total"] == pytest.approx(metrics["oracle"]["total"]["tuned"], abs=1e-4)
    assert (card.data.library_name, card.data.pipeline_tag) == ("diffusers", "text-to-image")
    assert card.data.base_model is None, "a folder is no model of the hub"
    assert "## Limitations" in card.text and "|---|---|---|\n| `base_model` |" in card.text
    assert "\n\n\n" not in card.text


def test_the_code_on_the_card_draws_the_image(evaluated: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(evaluated.parent.parent)
    code = re.search(r"```python\n(.*?)```", (evaluated / "model_card/README.md").read_text(), re.DOTALL)
    found: dict = {}
    exec(code[1], found)
    assert found["image"].size == (16, 16)
    assert any("lora" in name for name, _ in found["pipeline"].unet.named_parameters())


@pytest.mark.parametrize(("preset", "denoiser"), [("shapes", "unet"), ("shapes-flow", "transformer")])
def test_the_code_on_the_card_runs_on_the_shipped_models(
    preset: str, denoiser: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whose text encoders and UNet are files of half precision, beside the float32 one that the warm-up writes."""
    params = load(ROOT / f"presets/{preset}.yaml")
    (tmp_path / "data").mkdir()
    (tmp_path / "data/shapes").symlink_to(ROOT / "data/shapes")
    monkeypatch.chdir(tmp_path)
    backbone = load_base(params.base_model)
    backbone.denoiser.save_pretrained(f"data/warmup/{denoiser}")
    add_lora(backbone, 2, generator(0, "lora"))
    export_lora(backbone, Path("data/train/lora"))
    write_card(params, params.model_dump(), named_models(params), {}, tmp_path)
    code = re.search(r"```python\n(.*?)```", (tmp_path / "model_card/README.md").read_text(), re.DOTALL)
    found: dict = {}
    exec(code[1], found)
    pipeline, scheduler = found["pipeline"], found["pipeline"].scheduler
    assert ("max_sequence_length=24" in code[1]) == (preset == "shapes-flow"), "the small T5 reads no more"
    assert found["image"].size == (params.resolution,) * 2
    parts = [part for part in pipeline.components.values() if isinstance(part, torch.nn.Module)]
    assert {weight.dtype for part in parts for weight in part.parameters()} == {torch.float32}
    own = backbone.sampler(params.scheduler, params.sampling_steps, backbone.latent_shape(params.resolution)[1:])
    scheduler.set_timesteps(params.sampling_steps)
    assert scheduler.timesteps.tolist() == own.timesteps.tolist(), "as it was evaluated"


def test_a_category_is_one_cell_of_the_card() -> None:
    row = {"base": 0.5, "tuned": 0.5, "gain": 0.0, "gain_low": 0.0, "gain_high": 0.0, "n": 3}
    assert table("oracle", {"a | <b>\n": row}).splitlines()[2].startswith("| a \\| \\<b\\>\\\\n | 50.0% |")


@pytest.mark.parametrize(
    ("preset", "base", "licence"), [("sd15", "1-5", "creativeml-openrail-m"), ("sdxl", "xl", "openrail++")]
)
def test_the_card_of_a_preset_names_its_base_model_and_licence(preset: str, base: str, licence: str) -> None:
    data = card_data(load(ROOT / f"presets/{preset}.yaml").base_model, {}, "name")
    assert base in data.base_model and data.license == licence


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
