"""A run that stops for values that are not finite says which."""

from __future__ import annotations

from math import inf, nan

from comat.training.diagnosis import diagnose

FINE = {"loss": 1.0, "i2t": 1.0, "attribute": 0.0, "adversarial": 0.0, "discriminator": 1.0, "grad_norm": 1.0}


def test_every_cause_is_counted() -> None:
    """Two steps lose the captioner's term, the second Eq. 4 and 5 as well; the gradient that follows is no cause."""
    broken = {**FINE, "loss": nan, "i2t": nan, "grad_norm": nan}
    rows = [{**broken, "iteration": 7}, {**broken, "attribute": inf, "iteration": 8}]
    line = diagnose(rows, 0.5, "fp16", 1024.0)
    assert "stopped at iteration 8: the last 2 steps were skipped" in line
    assert "i2t (Eq. 2) in 2, attribute (Eq. 4 and 5) in 1 of them" in line
    assert "learning_rate is 0.5, precision fp16 with loss scale 1024." in line
    assert "gradient" not in line and "\n" not in line


def test_gradients_of_finite_losses_are_told_apart() -> None:
    """The row holds the online model's norm alone: where all of it is finite, the discriminator's was not."""
    rows = [{**FINE, "grad_norm": inf, "iteration": 0}, {**FINE, "iteration": 1}]
    line = diagnose(rows, 1e-5, "fp32", 1.0)
    assert "the gradient of finite losses in 1, the discriminator's gradient in 1 of them" in line
