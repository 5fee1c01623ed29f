"""Attention figures: light and dark, the same picture in other colours, readable in both."""

from __future__ import annotations

import base64
import io
import re
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pytest
import torch
from matplotlib import pyplot as plt
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.text import Text
from PIL import Image, ImageDraw, ImageFont

from comat.reporting.grid import BETWEEN, GUTTER, INK, PAPER, SIDE, pair_columns
from comat.reporting.overlays import COLOURS, DARK, DARK_COLOURS, attention_figure
from comat.reporting.pairs import Pair, Shot


def contrast(one: str, other: str) -> float:
    """The ratio of WCAG 2.2: relative luminances of linear sRGB, plus 0.05 each."""

    def luminance(colour: str) -> float:
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in to_rgb(colour)]
        return float(np.dot(linear, (0.2126, 0.7152, 0.0722)))

    dark, light = sorted((luminance(one), luminance(other)))
    return (light + 0.05) / (dark + 0.05)


def picture(dark: bool) -> Image.Image:
    maps = {model: torch.rand(4, 4, 4, generator=torch.Generator().manual_seed(0)) for model in COLOURS}
    images = {model: np.full((16, 16, 3), 200, np.uint8) for model in COLOURS}
    data = attention_figure("a red ball", ["start", "red", "ball", "end"], [1, 2], maps, images, dark=dark)
    return Image.open(io.BytesIO(data)).convert("RGB")


def test_dark_is_the_same_figure_on_a_dark_ground() -> None:
    light, dark = picture(False), picture(True)
    assert light.size == dark.size
    assert light.getpixel((0, 0)) == (255, 255, 255) and dark.getpixel((0, 0)) == (0x12, 0x16, 0x1B)
    assert mpl.rcParams["figure.facecolor"] == "white", "the settings of a dark figure are gone after it"


def test_models_are_called_as_everywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Base and tuned, in the figure and beside the rows of pairs: as in tables, files and options."""
    figures: list[Figure] = []
    monkeypatch.setattr(plt, "close", figures.append)
    picture(False)
    said = {text.get_text() for text in figures[0].findobj(Text)}
    assert {"base", "tuned"} <= said and "CoMat" not in said
    Image.new("RGB", (8, 8)).save(tmp_path / "x.png")
    shot = Shot(tmp_path / "x.png", 0.0, {})
    gutter = np.asarray(pair_columns([Pair("p", "a cube", "color", 0, shot, shot)]))[:, :GUTTER]
    for name, row in (("base", 0), ("tuned", 1)):
        plain = Image.new("RGB", (GUTTER, SIDE), PAPER)
        ImageDraw.Draw(plain).text((BETWEEN, SIDE // 2), name, INK, ImageFont.load_default(15), anchor="lm")
        top = len(gutter) - (2 - row) * (SIDE + BETWEEN)
        assert (gutter[top : top + SIDE] == np.asarray(plain)).all(), name


def test_text_and_bars_stand_out_in_both() -> None:
    """Text at least 4.5 to 1, bars at least 3 to 1 (WCAG 1.4.3 and 1.4.11)."""
    assert contrast("#000000", "#ffffff") == 21
    assert contrast(DARK["text.color"], DARK["figure.facecolor"]) >= 4.5
    for colours, ground in ((COLOURS, "#ffffff"), (DARK_COLOURS, DARK["figure.facecolor"])):
        assert all(contrast(colour, ground) >= 3 for colour in colours.values())


def test_the_report_follows_the_readers_mode(project: Path) -> None:
    """Each figure is there twice; the dark one is dark."""
    text = (project / "data/evaluate/report.html").read_text(encoding="utf-8")
    found = re.findall(r'<source srcset="data:image/webp;base64,([^"]+)" media="\(prefers-color-scheme: dark\)">', text)
    assert len(found) == text.count('<p class="overlay"') > 0
    corner = Image.open(io.BytesIO(base64.b64decode(found[0]))).convert("RGB").getpixel((1, 1))
    assert max(corner) < 60, corner


def test_a_dollar_in_a_prompt_is_a_dollar() -> None:
    """Two of them are no formula, one that is none no error."""
    maps, images = {"base": torch.rand(4, 4, 4)}, {"base": np.zeros((8, 8, 3), np.uint8)}
    seen: list[str] = []
    real = Text.draw

    def draw(self, *args) -> None:
        shown, formula = self._preprocess_math(self.get_text())
        seen.append(shown)
        assert not formula
        real(self, *args)

    prompt = "a $5 bill and a 10% $off coin & more"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Text, "draw", draw)
        assert attention_figure(prompt, ["start", "$$", "$_$", "end"], [1, 2], maps, images)
    assert {prompt, "$$", "$_$"} <= set(seen)
