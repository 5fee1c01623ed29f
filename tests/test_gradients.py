"""How much each term of the loss pulls: their gradients add up, their norms and cosines are those of the vectors."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest
import torch

from comat.method.step import TERMS
from comat.reporting.report import TERM_CURVES, training_charts
from comat.training.gradients import COLUMNS, measured
from tests.test_replay import TERMS as LOSSES
from tests.test_replay import build, gradient, relative


@pytest.mark.parametrize("scale", [1.0, 8.0])
def test_the_gradients_of_the_terms_add_up_to_the_gradient(make_params, scale: float) -> None:
    step, lora, batch = build(make_params(attribute_reduction="sum", **LOSSES["sum"]))
    step.loss_scale = scale
    values = step(batch, apart=True)
    whole, critic = gradient(lora), gradient(step.discriminator.trainable_parameters())
    parts = {term: torch.cat([part.flatten() for part in own]).double() for term, own in step.by_term.items()}
    assert tuple(parts) == TERMS and all(part.norm() > 0 for part in parts.values())
    assert relative(sum(parts.values()), whole) < 1e-5
    for weight in (*lora, *step.discriminator.trainable_parameters()):
        weight.grad = None
    assert step(batch) == values  # to look at them changes neither values nor gradients
    assert torch.equal(gradient(lora), whole)
    assert torch.equal(gradient(step.discriminator.trainable_parameters()), critic)


@pytest.mark.parametrize("term", ["concept activation", "adversarial", "attribute"])
def test_a_term_that_is_off_pulls_at_nothing(make_params, term: str) -> None:
    step, lora, batch = build(make_params(**LOSSES[term]))
    step(batch, apart=True)
    norms = {name: float(sum(part.square().sum() for part in own)) for name, own in step.by_term.items()}
    own = {"concept activation": "i2t"}.get(term, term)
    assert norms.pop(own) > 0 and not any(norms.values())
    assert gradient(lora).norm() > 0


def test_norms_and_cosines_by_hand() -> None:
    """(3, 4) has norm 5; with (4, 3) its cosine is 24/25, with (-3, -4) it is -1; nothing has none."""
    rows = {"i2t": [3.0, 4.0], "i2t_real": [4.0, 3.0], "attribute": [-3.0, -4.0], "adversarial": [0.0, 0.0]}
    found = measured({term: torch.tensor(row) for term, row in rows.items()})
    assert list(found) == COLUMNS
    assert [found[f"grad_{term}"] for term in TERMS] == pytest.approx([5, 5, 5, 0])
    assert found["cos_i2t_i2t_real"] == pytest.approx(24 / 25)
    assert found["cos_i2t_attribute"] == pytest.approx(-1)
    assert found["cos_i2t_adversarial"] == 0


def test_the_report_draws_the_iterations_that_were_measured(tmp_path: Path) -> None:
    columns = ["iteration", "loss", "i2t", "attribute", "adversarial", "discriminator", "grad_norm", *COLUMNS]
    with (tmp_path / "curves.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, columns, restval="")
        writer.writeheader()
        for iteration in range(4):
            row = dict.fromkeys(columns[1:7], 1.0) | {"iteration": iteration}
            writer.writerow(row | (dict.fromkeys(COLUMNS, 0.5) if iteration % 2 == 0 else {}))
    titles = [chart.title for chart in training_charts(tmp_path / "curves.csv")]
    assert titles[-2:] == list(TERM_CURVES)
    assert {name for names in TERM_CURVES.values() for name in names} < set(COLUMNS)
