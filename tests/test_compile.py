"""`compile`: sampling alone goes through torch.compile, and draws what it drew."""

from __future__ import annotations

import os
import shutil

import pytest
import torch

from comat.diffusion.backbones import Backbone
from comat.diffusion.load import load_backbone
from comat.diffusion.lora import add_lora, merged
from comat.diffusion.rollout import Rollout, rollout
from comat.diffusion.schedulers import make_sampler
from comat.errors import UserError
from comat.method.replay import leaf_gradients, replay
from comat.randomness import generator, noise


def sampled(backbone: Backbone) -> tuple[Rollout, list[torch.nn.Parameter]]:
    """Three steps, the second recorded, with a LoRA that changes the weights."""
    weights = add_lora(backbone, 2, generator(0, "lora"))
    with torch.no_grad():
        for weight in weights:
            weight.add_(0.02)
    own = [generator(0, "noise", row) for row in range(2)]
    sampler = make_sampler("ddpm", backbone.scheduler_config, 3)
    prompts = backbone.encode_prompts(["a red cube", "a blue star"])
    with merged(backbone.denoiser):
        z = noise(backbone.latent_shape(64), own)
        return rollout(backbone, sampler, z, prompts, 5.0, own, record=[[1], [1]], chunk=2), weights


class Counting:
    """Stands for torch.compile; counts the calls of what it returns."""

    calls = 0

    def __call__(self, module: torch.nn.Module):
        def call(*args, **kwargs):
            self.calls += 1
            return module(*args, **kwargs)

        return call


def test_sampling_alone_is_compiled(make_params, monkeypatch) -> None:
    """Three steps of one chunk are three calls; replay, with gradients, adds none."""
    compiler = Counting()
    monkeypatch.setattr(torch, "compile", compiler)
    monkeypatch.setattr(shutil, "which", lambda name: name)
    backbone = load_backbone(make_params(compile=True))
    generated, weights = sampled(backbone)
    assert compiler.calls == 3
    gradients = leaf_gradients(generated, torch.ones_like(generated.z0))
    replay(backbone, generated, gradients, 5.0, chunk=2)
    assert compiler.calls == 3 and all(weight.grad is not None for weight in weights)


def test_without_a_compiler_it_says_so(make_params, monkeypatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(UserError, match=r"needs a C\+\+ compiler on a CPU, found none; install g\+\+"):
        load_backbone(make_params(compile=True))


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which(os.environ.get("CXX", "g++")), reason="needs a C++ compiler")
def test_compiled_sampling_draws_the_same(make_params) -> None:
    plain, _ = sampled(load_backbone(make_params()))
    compiled, _ = sampled(load_backbone(make_params(compile=True)))
    assert plain.z0.abs().mean() > 0
    torch.testing.assert_close(compiled.z0, plain.z0, rtol=1e-4, atol=1e-4)
