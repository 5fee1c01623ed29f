"""The report's charts: running means, axes, lines."""

from __future__ import annotations

import math
import re
from pathlib import Path

from jinja2 import Environment, PackageLoader

from comat.reporting.charts import Axis, line_chart, running_mean
from comat.reporting.html import figure, score
from comat.reporting.report import training_charts
from comat.training.gradients import gradient_columns


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
    terms = ",".join(gradient_columns())
    head = f"iteration,loss,i2t,attribute,adversarial,discriminator,grad_norm,skipped,{terms}\n"
    (tmp_path / "curves.csv").write_text(head)
    assert training_charts(tmp_path / "curves.csv") == []
    (tmp_path / "curves.csv").write_text(head + "0,1.0,1.0,0.0,0.0,0.0,0.5,0" + "," * len(gradient_columns()) + "\n")
    assert [list(chart.lines) for chart in training_charts(tmp_path / "curves.csv")] == [["loss", "i2t"], ["grad_norm"]]


def test_bars_begin_at_zero_wherever_it_is() -> None:
    """From -4 to 1 zero is at 80%: -3 and its interval [-4, -2] are 20% to 80%, 0% to 40%; 1 is 80% to 100%."""
    template = "{% import 'charts.html.j2' as draw %}{{ draw.bars(rows, {}, '') }}"
    base, tuned = {"base": -3.0, "base_low": -4.0, "base_high": -2.0}, {"tuned": 1.0, "tuned_low": None}
    rows = {"total": base | tuned | {"tuned_high": None}}
    environment = Environment(loader=PackageLoader("comat.reporting"))
    environment.filters |= {"score": score, "figure": figure}
    page = environment.from_string(template).render(rows=rows)
    bars = re.findall(r'<rect class="(base|tuned)" x="([0-9.]+)%" y="\d+" width="([0-9.]+)%"', page)
    assert [(name, float(x), float(width)) for name, x, width in bars] == [("base", 20, 60), ("tuned", 80, 20)]
    assert re.findall(r'x1="([0-9.]+)%" x2="([0-9.]+)%"', page) == [("0.0", "40.0")]
