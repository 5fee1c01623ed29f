"""The learning rate of each iteration."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
import torch
from diffusers.optimization import get_scheduler

from comat.training.schedule import learning_rate
from tests.test_precision import trainer

HALF_SQUARE_ROOT_OF_2 = 2**0.5 / 2
BY_HAND = {
    "constant": [0.8, 0.8, 0.8, 0.8],
    "linear": [0.8, 0.6, 0.4, 0.2],
    "cosine": [0.8, 0.4 * (1 + HALF_SQUARE_ROOT_OF_2), 0.4, 0.4 * (1 - HALF_SQUARE_ROOT_OF_2)],
}


@pytest.mark.parametrize("schedule", BY_HAND)
def test_the_learning_rate_of_each_of_four_iterations(make_params, schedule: str) -> None:
    params = make_params(learning_rate=0.8, learning_rate_schedule=schedule, train_steps=4)
    assert [learning_rate(params, n) for n in range(4)] == pytest.approx(BY_HAND[schedule], abs=1e-12)
    assert learning_rate(params, 9) == (0.8 if schedule == "constant" else 0)  # not below


@pytest.mark.parametrize("schedule", BY_HAND)
def test_schedules_are_those_of_diffusers(make_params, schedule: str) -> None:
    params = make_params(learning_rate_schedule=schedule, train_steps=7)
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], params.learning_rate)
    theirs = get_scheduler(schedule, optimizer, num_warmup_steps=0, num_training_steps=7)
    for iteration in range(7):
        assert learning_rate(params, iteration) == pytest.approx(theirs.get_last_lr()[0], rel=1e-9)
        optimizer.step()
        theirs.step()


def test_training_steps_by_it_and_its_curves_say_so(project: Path, tmp_path: Path) -> None:
    """After the last iteration a linear rate is zero: such a step leaves LoRA as it is, and not the discriminator."""
    ours = trainer(project, tmp_path / "work", learning_rate=0.008, learning_rate_schedule="linear", train_steps=4)
    ours.run()
    ours.export(tmp_path / "out")
    with (tmp_path / "out/curves.csv").open(newline="") as file:
        rates = [float(row["learning_rate"]) for row in csv.DictReader(file)]
    assert rates == pytest.approx([0.008, 0.006, 0.004, 0.002])
    assert "learning_rate" not in json.loads((tmp_path / "out/metrics.json").read_text())["train"]

    lora, critic = ([weight.clone() for weight in own] for own in (ours.lora, ours.critic))
    assert ours.iterate(4)["grad_norm"] > 0
    assert all(torch.equal(old, new) for old, new in zip(lora, ours.lora, strict=True))
    assert not all(torch.equal(old, new) for old, new in zip(critic, ours.critic, strict=True))


def test_a_resumed_run_goes_on_with_the_learning_rate_of_its_iteration(project: Path, tmp_path: Path) -> None:
    own = {"learning_rate_schedule": "cosine", "train_steps": 4}
    whole = trainer(project, tmp_path / "whole", **own)
    whole.run()
    first = trainer(project, tmp_path / "parts", **own)
    first._run(2)
    again = trainer(project, tmp_path / "parts", **own)
    again.run()
    assert [row["learning_rate"] for row in again.rows] == [row["learning_rate"] for row in whole.rows]
    assert all(torch.equal(one, other) for one, other in zip(again.lora, whole.lora, strict=True))
