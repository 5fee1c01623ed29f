"""In half precision: what is learned takes effect, gradients reach float32 masters, saturated pixels keep theirs."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from peft import LoraConfig
from peft.tuners.lora import Linear
from torch import Tensor, nn
from torch.testing import assert_close

from comat.diffusion.backbones import Backbone, load_base
from comat.diffusion.lora import LoraLinear, adapted, add_lora, export_lora, load_lora, mergeable, merged
from comat.discriminators import load_discriminator
from comat.models.preprocess import Preprocess
from comat.randomness import generator

BASE = "data/shapes/models/base"
SAMPLES, RANK = 32, 64
COLOURS = ("red", "blue", "green", "yellow", "pink", "black", "white", "orange")
SHAPES = ("cube", "ball", "star", "ring")


def towards(folder: str) -> list[Tensor]:
    """Of each layer the B that goes towards a fixed image for every sample: a LoRA that has learned something."""
    backbone = load_base(folder)
    add_lora(backbone, RANK, generator(0, "lora"))
    (predict(backbone) * torch.randn(4, 8, 8, generator=generator(0, "aim"))).sum().backward()
    return [layer.lora_B["default"].weight.grad for layer, _ in adapted(backbone.denoiser)]


def predict(backbone: Backbone) -> Tensor:
    """Of prompts and timesteps that all differ: equal ones would round equally."""
    z = torch.randn(SAMPLES, 4, 8, 8, generator=generator(0, "z"))
    prompts = [f"a {colour} {shape}" for colour in COLOURS for shape in SHAPES][:SAMPLES]
    return backbone.denoise(z, torch.linspace(1, 999, SAMPLES).long(), backbone.encode_prompts(prompts))


@torch.no_grad()
def effect(folder: str, precision: str, ups: list[Tensor], size: float) -> Tensor:
    """What the LoRA changes of a prediction while sampling, where every layer's is `size` times its weights."""
    backbone = load_base(folder, precision=precision)
    before = predict(backbone)
    add_lora(backbone, RANK, generator(0, "lora"))
    for (layer, base), up in zip(adapted(backbone.denoiser), ups, strict=True):
        a, b = layer.lora_A["default"].weight, layer.lora_B["default"].weight
        b.copy_(up * size * base.float().norm() / (up @ a).norm())
    with merged(backbone.denoiser):
        return predict(backbone) - before


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_a_small_lora_takes_effect(precision: str) -> None:
    """The share of float32's effect that is there, along that effect, at 5e-4 of the shapes model's weights.

    Merged into bf16 weights it was 0.4, and with peft's forward beside them 0.7.
    """
    ups = towards(BASE)
    exact, half = effect(BASE, "fp32", ups, 5e-4), effect(BASE, precision, ups, 5e-4)
    assert 0.9 <= float((half * exact).sum() / exact.square().sum()) <= 1.1


@pytest.mark.parametrize("precision", [torch.bfloat16, torch.float16])
def test_base_and_lora_are_rounded_once(precision: torch.dtype) -> None:
    """The LoRA's part of the output of one layer, 256 x 64 numbers, at 5e-4 of the base's.

    Both are N(0, 1) times their size; rounded to half precision apart, 0.3 of it is left in bf16.
    """
    rng = generator(0, "layer")
    layer = LoraLinear(
        nn.Linear(64, 64, bias=False), "default", LoraConfig(init_lora_weights=False), r=64, lora_alpha=64
    )
    x = torch.randn(256, 64, generator=rng).to(precision)
    with torch.no_grad():
        layer.lora_A["default"].weight.copy_(torch.eye(64))
        layer.base_layer.weight.copy_(torch.randn(64, 64, generator=rng) / 8)
        layer.base_layer.to(precision)
        layer.lora_B["default"].weight.zero_()
        before = layer(x).float()
        up = layer.lora_B["default"].weight.copy_(5e-4 * torch.randn(64, 64, generator=rng) / 8)
        exact = x.float() @ up.t()
        found = layer(x)
    assert found.dtype == precision
    assert float(((found.float() - before) * exact).sum() / exact.square().sum()) == pytest.approx(1, abs=0.1)


@pytest.mark.parametrize("bias", [False, True])
def test_in_float32_it_is_pefts_layer(bias: bool) -> None:
    """And in half precision the same but for rounding, with a batch of two dimensions."""
    rng = generator(0, "layer")
    ours, theirs = (
        kind(nn.Linear(8, 6, bias=bias), "default", LoraConfig(init_lora_weights=False), r=4)
        for kind in (LoraLinear, Linear)
    )
    theirs.load_state_dict(ours.state_dict())
    x = torch.randn(2, 3, 8, generator=rng)
    assert torch.equal(ours(x), theirs(x))
    ours.base_layer.to(torch.bfloat16)
    assert_close(ours(x.bfloat16()).float(), theirs(x), rtol=0.05, atol=0.05)


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_gradients_reach_float32_masters(tiny: Path, precision: str) -> None:
    """The branch keeps no float32 activation: what autograd saves there is in the model's precision."""
    backbone = load_base(str(tiny / "sdxl"), precision=precision)
    weights = add_lora(backbone, 2, generator(0, "lora"))
    layer = next(layer for layer, _ in adapted(backbone.denoiser))
    kept: list[Tensor] = []

    def keep(saved: Tensor) -> Tensor:
        kept.append(saved)
        return saved

    x = torch.randn(5, 7, layer.in_features, generator=generator(0, "x")).to(backbone.dtype)
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda saved: saved):
        out = layer(x)
    assert out.dtype == backbone.dtype and kept and {saved.dtype for saved in kept} == {backbone.dtype}
    predict(backbone).square().mean().backward()
    assert {w.dtype for w in weights} == {w.grad.dtype for w in weights if w.grad is not None} == {torch.float32}
    assert any(w.grad is not None and w.grad.abs().max() > 0 for w in weights)


def test_only_float32_weights_are_merged(tiny: Path) -> None:
    for precision, merges in (("fp32", True), ("bf16", False), ("fp16", False)):
        backbone = load_base(str(tiny / "sdxl"), precision=precision)
        add_lora(backbone, 2, generator(0, "lora"))
        with merged(backbone.denoiser):
            assert {layer.merged for layer, _ in adapted(backbone.denoiser)} == {merges}
        assert bool(mergeable(backbone.denoiser)) == merges


def test_the_discriminator_shares_the_autoencoder(make_params) -> None:
    params = make_params()
    backbone = load_base(params.base_model)
    critic = load_discriminator(
        params, backbone, generator(0, "critic"), lora_rank=2, precision="fp32", checkpointed=False
    )
    assert critic._backbone.vae is backbone.vae and critic._backbone.denoiser is not backbone.denoiser


def test_loading_a_lora_draws_nothing(tiny: Path, tmp_path: Path) -> None:
    """Of the draws of torch's own generator, which initialises layers, none is taken; the weights are the file's."""
    first, second = (load_base(str(tiny / "sdxl")) for _ in range(2))
    weights = add_lora(first, 2, generator(0, "lora"))
    export_lora(first, tmp_path)
    before = torch.get_rng_state()
    load_lora(second, tmp_path)
    assert torch.equal(torch.get_rng_state(), before)
    loaded = [weight for name, weight in second.denoiser.named_parameters() if "lora_" in name]
    assert all(torch.equal(a, b) for a, b in zip(weights, loaded, strict=True))


@pytest.mark.parametrize("side", [16, 32])
def test_a_saturated_pixel_keeps_its_gradient(tiny: Path, side: int) -> None:
    """Far below black and above white, at the captioner's own size and at one that is resized."""
    images = torch.cat([torch.full((1, 3, side, side), value) for value in (-0.5, 1.5)]).requires_grad_()
    Preprocess(str(tiny / "blip"), None, 16)(images, torch.float32).sum().backward()
    assert images.grad is not None and images.grad.abs().min() > 0
