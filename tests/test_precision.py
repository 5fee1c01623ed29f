"""fp16 needs a scaled loss; LoRA and its optimizer are float32 whatever the frozen models compute in."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch

from comat.diffusion.load import load_backbone
from comat.errors import UserError
from comat.storage.tables import read_safetensors
from comat.tokenizers import find_columns
from comat.training.data import TrainingData
from comat.training.trainer import Trainer
from tests.test_replay import build, gradient, relative
from tests.test_stages import params_of


def trainer(project: Path, work: Path, **changes: object) -> Trainer:
    params, data = params_of(project).model_copy(update=changes), project / "data"
    folders = [
        data / name for name in ("prompts", "entities", "reference_latents", "image_latents", "caption_entities")
    ]
    work.mkdir(exist_ok=True)
    rows = TrainingData(
        params, params.discriminator_input, params.train.guard, *folders, find_columns(params.base_model)
    )
    return Trainer(params, load_backbone(params, data / "warmup"), rows, work)


def test_the_loss_scale_scales_gradients_and_no_value(make_params) -> None:
    """2^10 is a power of two: float32 gradients come out exactly times 1024."""
    results = []
    for scale in (1.0, 1024.0):
        step, lora, batch = build(make_params(alpha=1.0, beta=0.5))
        step.loss_scale = scale
        results.append((step(batch), gradient(lora), gradient(step.discriminator.trainable_parameters())))
    (values, lora, critic), (scaled_values, scaled_lora, scaled_critic) = results
    assert scaled_values == pytest.approx(values, rel=1e-6)
    assert relative(scaled_lora, 1024 * lora) < 1e-5
    assert relative(scaled_critic, 1024 * critic) < 1e-5


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_half_precision_trains_float32_weights(project: Path, tmp_path: Path, precision: str) -> None:
    ours = trainer(project, tmp_path, precision=precision, train_steps=3)
    before = [w.clone() for w in ours.lora]
    ours.run()
    assert ours.backbone.denoiser.conv_in.weight.dtype == ours.backbone.dtype != torch.float32
    assert {w.dtype for w in (*ours.lora, *ours.critic)} == {torch.float32}
    assert {m.dtype for s in ours.optimizer.state.values() for m in s.values()} == {torch.float32}
    assert not any(row["skipped"] for row in ours.rows)  # by a loss scale that is too high at first
    assert any(not torch.equal(a, b) for a, b in zip(before, ours.lora, strict=True))


def test_a_gradient_that_overflows_halves_the_scale_and_changes_nothing_else(project: Path, tmp_path: Path) -> None:
    ours = trainer(project, tmp_path, precision="fp16")
    ours.scaler.load_state_dict({**ours.scaler.state_dict(), "scale": 2.0**40})
    before = [w.clone() for w in ours.lora]
    row = ours.iterate(0)
    assert row["skipped"] == 1
    assert ours.scaler.get_scale() == 2.0**39
    assert all(torch.equal(a, b) for a, b in zip(before, ours.lora, strict=True))


def test_gradients_by_term_do_not_depend_on_the_scale(project: Path, tmp_path: Path) -> None:
    """As they are noted, while the weights hold them times the scale."""
    looking = params_of(project).train.model_copy(update={"gradients_every": 1})
    found = []
    for name, scale in (("low", 16.0), ("high", 1024.0)):
        ours = trainer(project, tmp_path / name, precision="fp16", train=looking)
        ours.scaler.load_state_dict({**ours.scaler.state_dict(), "scale": scale})
        assert ours.iterate(0)["skipped"] == 0
        found.append({key: value for key, value in ours.terms.items() if key.startswith("grad_")})
    low, high = found
    assert low["grad_i2t"] > 0
    assert high == pytest.approx(low, rel=0.1, abs=1e-6)


def test_a_batch_that_teaches_nothing_is_no_end_of_fp16(project: Path, tmp_path: Path) -> None:
    """Attribute concentration alone, of prompts without entities: torch's scaler refused what has no gradient."""
    alone = {"concept_activation": False, "lambda_adv": 0.0, "image_batch": 0, "alpha": 1.0, "beta": 0.5}
    ours = trainer(project, tmp_path, precision="fp16", **alone)
    batch = ours.data.batch(0)
    ours.data.batch = lambda iteration: dataclasses.replace(batch, entities=[[] for _ in batch.entities])
    before = [w.clone() for w in ours.lora]
    row = ours.iterate(0)
    assert row["skipped"] == row["grad_norm"] == row["attribute"] == 0
    assert all(torch.equal(a, b) for a, b in zip(before, ours.lora, strict=True))
    ours.data.batch = lambda iteration: batch
    assert ours.iterate(1)["grad_norm"] > 0


def test_the_scale_is_part_of_the_saved_state(project: Path, tmp_path: Path) -> None:
    first = trainer(project, tmp_path, precision="fp16", train_steps=1)
    first.scaler.load_state_dict({**first.scaler.state_dict(), "scale": 2.0**40})
    with pytest.raises(UserError, match="training stopped at iteration 0"):  # its only step was skipped
        first.run()
    again = trainer(project, tmp_path, precision="fp16", train_steps=1)
    assert again.scaler.state_dict() == first.scaler.state_dict()
    assert len(again.rows) == 1
    assert read_safetensors(tmp_path / "state.safetensors")
