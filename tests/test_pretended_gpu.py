"""Nothing that a GPU would not compute: every family, every stage, with a device that only says it is another one."""

from __future__ import annotations

import importlib
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file

from comat.diffusion.sampling import attention_of, decoded, sample_latents
from comat.storage.folders import files_below
from comat.storage.images import read_rgb
from tests import tiny_families
from tests.conftest import STAGES, run
from tests.pretended import DEVICE, Placed, pretend, pretending
from tests.test_backbones import GUIDED
from tests.test_replay import TERMS, build, gradient, relative

READ = {".png", ".safetensors"}


def test_tensors_of_both_places_do_not_mix() -> None:
    with pretending():
        one, other = torch.ones(2, 3, device=DEVICE), torch.ones(2, 3)
        for mixed in (lambda: one + other, lambda: one @ other.T, lambda: torch.cat([one, other])):
            with pytest.raises(RuntimeError, match="tensors on a GPU, and on the CPU"):
                mixed()
        weight = one.clone().requires_grad_()
        (weight * torch.tensor(2.0)).view(6)[:3].sum().backward()
        assert isinstance(weight.grad, Placed) and weight.grad.cpu().tolist() == [[2, 2, 2], [0, 0, 0]]
        assert (one + other.to(DEVICE)).sum().item() == 12 and one.cpu().device.type == "cpu"


@pytest.mark.slow
@pytest.mark.parametrize("name", tiny_families.NAMES)
def test_every_family_learns_and_draws_there(make_params, families: Path, monkeypatch, name: str) -> None:
    """The gradient and the values of all losses are the CPU's; images and attention maps come out."""
    model, guidance = str(families / name), GUIDED.get(name, (4.0,))[-1]
    params = make_params(
        base_model=model, discriminator_model=model, scheduler="model", guidance_scale=guidance, **TERMS["sum"]
    )
    expected, lora, batch = build(params)
    values, weights = expected(batch), gradient(lora)
    pretend(monkeypatch)
    with pretending():
        step, lora, batch = build(params, device=DEVICE)
        assert all(isinstance(one, Placed) for one in lora)
        assert step(batch) == pytest.approx(values, rel=1e-3, abs=1e-5)
        assert relative(gradient(lora).cpu(), weights) < 1e-3
        z = sample_latents(step.backbone, params, batch.prompts, [("a", 0)] * 3, "test", params.resolution)
        maps, _ = attention_of(step.backbone, params, batch.prompts[0], ("a", 0), "test")
        assert decoded(step.backbone, z).isfinite().all() and maps.device.type == "cpu" and maps.sum() > 0


@pytest.mark.slow
def test_every_stage_computes_there_what_the_cpu_computes(
    project: Path, broken: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """But for rounding: attention is not fused there."""
    shutil.rmtree(broken / "data")
    for stage in STAGES:
        importlib.import_module(f"stages.{stage}")
    pretend(monkeypatch)
    with pretending():
        for stage in STAGES:
            run(stage, broken)
    files = [path.relative_to(project) for path in files_below(project / "data") if path.suffix in READ]
    files = [path for path in files if path.parts[1] != "evaluate"]  # whose pictures are of what is compared here
    assert {path.parts[1] for path in files} >= {"warmup", "image_latents", "reference_latents", "train", "samples"}
    for path in files:
        for own, expected in zip(numbers(broken / path), numbers(project / path), strict=True):
            assert np.allclose(own, expected, rtol=1e-3, atol=2 if path.suffix == ".png" else 1e-4), path
    own, expected = (json.loads((one / "data/evaluate/metrics.json").read_text()) for one in (broken, project))
    assert own["frechet"] == pytest.approx(expected["frechet"], rel=1e-2)


def numbers(path: Path) -> list[np.ndarray]:
    """What a file of tensors or an image holds."""
    return [read_rgb(path).astype(float)] if path.suffix == ".png" else [*load_file(path).values()]
