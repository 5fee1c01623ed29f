"""How much each term of the loss pulls: their gradients add up, their norms and cosines are those of the vectors."""

from __future__ import annotations

import csv
import weakref
from pathlib import Path

import pytest
import torch

from comat.estimate.cost import _Live
from comat.method.batch import Batch
from comat.method.step import DENOISING, TERMS, Step
from comat.reporting.report import OPTIONAL_TERM_CURVES, TERM_CURVES, training_charts
from comat.training.gradients import gradient_columns, measured
from tests.test_replay import TERMS as LOSSES
from tests.test_replay import build, gradient, relative

COLUMNS = gradient_columns()


def seen(step: Step, batch: Batch, lora: list[torch.nn.Parameter]) -> tuple[dict[str, torch.Tensor], dict[str, float]]:
    """The gradient of each term as one vector in float64, and the values of the losses."""
    parts: dict[str, torch.Tensor] = {}
    values = step(batch, look=lambda term: parts.update({term: gradient(lora).double()}))
    return parts, values


@pytest.mark.parametrize("scale", [1.0, 8.0])
@pytest.mark.parametrize(
    ("losses", "pulling"),
    [("sum", TERMS), ("sum and denoising", (*TERMS, DENOISING)), ("grounded", ("attribute", DENOISING))],
)
def test_the_gradients_of_the_terms_add_up_to_the_gradient(
    make_params, scale: float, losses: str, pulling: tuple[str, ...]
) -> None:
    step, lora, batch = build(make_params(attribute_reduction="sum", **LOSSES[losses]))
    step.loss_scale = scale
    parts, values = seen(step, batch, lora)
    critics = step.discriminator.trainable_parameters() if step.discriminator else []
    whole, all_of_them = gradient(lora), gradient([*lora, *critics])
    assert tuple(term for term, part in parts.items() if part.norm() > 0) == pulling
    assert tuple(parts) == ((*TERMS, DENOISING) if DENOISING in pulling else TERMS)
    assert relative(sum(parts.values()), whole) < 1e-5
    for weight in (*lora, *critics):
        weight.grad = None
    assert step(batch) == values  # to look at them changes neither values nor gradients
    assert torch.equal(gradient([*lora, *critics]), all_of_them)


@pytest.mark.parametrize("term", ["concept activation", "adversarial", "attribute"])
def test_a_term_that_is_off_pulls_at_nothing(make_params, term: str) -> None:
    step, lora, batch = build(make_params(**LOSSES[term]))
    parts, _ = seen(step, batch, lora)
    norms = {name: float(part.norm()) for name, part in parts.items()}
    own = {"concept activation": "i2t"}.get(term, term)
    assert norms.pop(own) > 0 and not any(norms.values())
    assert gradient(lora).norm() > 0


def test_norms_and_cosines_by_hand() -> None:
    """(3, 4) has norm 5; with (4, 3) its cosine is 24/25, with (-3, -4) it is -1; nothing has none.

    Their numbers are those of two weights, of one each.
    """
    rows = {"i2t": [3.0, 4.0], "i2t_real": [4.0, 3.0], "attribute": [-3.0, -4.0], "adversarial": [0.0, 0.0]}
    found = measured(
        {term: [torch.tensor([[first]]), torch.tensor([second])] for term, (first, second) in rows.items()}
    )
    assert list(found) == COLUMNS
    assert [found[f"grad_{term}"] for term in TERMS] == pytest.approx([5, 5, 5, 0])
    assert found["cos_i2t_i2t_real"] == pytest.approx(24 / 25)
    assert found["cos_i2t_attribute"] == pytest.approx(-1)
    assert found["cos_i2t_adversarial"] == 0


def test_a_step_holds_the_gradient_of_one_term_at_a_time_and_the_norms_those_of_one_weight(make_params) -> None:
    """For SDXL's LoRA 84 bytes a weight were held, 15.6 GB."""
    step, lora, batch = build(make_params(attribute_reduction="sum", **LOSSES["sum"]))
    before: list[weakref.ref] = []

    def look(term: str) -> None:
        assert not any(gradient() is not None for gradient in before)
        before[:] = [weakref.ref(weight.grad) for weight in lora if weight.grad is not None]
        assert before

    step(batch, look=look)
    of_terms = {term: [torch.ones_like(weight) for weight in lora] for term in TERMS}
    with _Live() as live:
        measured(of_terms)
    sizes = [weight.numel() for weight in lora]
    assert live.peak <= 3 * len(TERMS) * 8 * max(sizes) < len(TERMS) * 4 * sum(sizes)


def test_the_report_draws_the_iterations_that_were_measured(tmp_path: Path) -> None:
    header = ["iteration", "loss", "i2t", "attribute", "adversarial", "discriminator", "grad_norm", *COLUMNS]
    with (tmp_path / "curves.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, header, restval="")
        writer.writeheader()
        for iteration in range(4):
            row = dict.fromkeys(header[1:7], 1.0) | {"iteration": iteration}
            writer.writerow(row | (dict.fromkeys(COLUMNS, 0.5) if iteration % 2 == 0 else {}))
    titles = [chart.title for chart in training_charts(tmp_path / "curves.csv")]
    assert titles[-3:] == list(TERM_CURVES)
    assert sorted(name for names in TERM_CURVES.values() for name in names) == sorted(COLUMNS)
    optional = {name for names in OPTIONAL_TERM_CURVES.values() for name in names}
    assert optional == set(gradient_columns((*TERMS, DENOISING))) - set(COLUMNS)


def test_the_report_draws_the_denoising_loss_where_there_is_one(tmp_path: Path) -> None:
    terms = gradient_columns((*TERMS, DENOISING))
    head = ["iteration", "loss", "i2t", "attribute", "adversarial", "discriminator", "denoising", "grad_norm", *terms]
    rows = [[n, 1.0, 0.0, 0.0, 0.0, 0.0, 0.5 - n / 10, 1.0, *[0.25] * len(terms)] for n in range(3)]
    (tmp_path / "curves.csv").write_text("\n".join(",".join(map(str, row)) for row in (head, *rows)) + "\n")
    charts = {chart.title: list(chart.lines) for chart in training_charts(tmp_path / "curves.csv")}
    assert charts["Denoising of real images (Eq. 1)"] == ["denoising"]
    assert charts["Norm of the denoising term's own gradient"] == ["grad_denoising"]
    assert len(charts["Cosine of each term's gradient with the denoising term's"]) == 4
