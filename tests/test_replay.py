"""Replay's gradient is the full graph's, whatever the term, the scheduler and the chunk; and it reaches LoRA alone."""

from __future__ import annotations

import math

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from benchmarks.full_graph import full_graph_loss
from comat.captioners.load import load_teacher
from comat.diffusion.attention import recorded_maps
from comat.diffusion.backbones import load_base
from comat.diffusion.lora import add_lora, merged
from comat.diffusion.rollout import rollout
from comat.diffusion.schedulers import make_sampler
from comat.discriminators import load_discriminator
from comat.method.attribute_concentration import Entity
from comat.method.batch import NO_IMAGES, Batch, RealImages
from comat.method.step import Step
from comat.randomness import generator, noise
from comat.segmenters.load import load_segmenter

TERMS = {
    "concept activation": {"alpha": 0.0, "beta": 0.0, "lambda_adv": 0.0, "image_batch": 0},
    "mixed latents": {"alpha": 0.0, "beta": 0.0, "lambda_adv": 0.0},
    "adversarial": {"concept_activation": False, "alpha": 0.0, "beta": 0.0, "image_batch": 0},
    "attribute": {"concept_activation": False, "alpha": 1.0, "beta": 0.5, "lambda_adv": 0.0, "image_batch": 0},
    "sum": {"alpha": 1.0, "beta": 0.5},
    "denoising": {"concept_activation": False, "alpha": 0.0, "beta": 0.0, "lambda_adv": 0.0, "denoising_weight": 2.0},
    "grounded": {
        "concept_activation": False,
        "lambda_adv": 0.0,
        "denoising_weight": 0.5,
        "attribute_images": "real",
        "attribute_loss": "tokencompose",
        "alpha": 1.0,
        "beta": 0.5,
    },
    "sum and denoising": {"alpha": 1.0, "beta": 0.5, "denoising_weight": 1.0},
}


def build(
    params, dtype=torch.float32, device: str | torch.device = "cpu"
) -> tuple[Step, list[torch.nn.Parameter], Batch]:
    device = torch.device(device)
    backbone = load_base(params.base_model, device=device)
    lora = add_lora(backbone, params.lora_rank, generator(0, "lora"))
    with torch.no_grad():  # B is zero at first, which would hide errors in the gradient of A
        for weight in lora:
            weight.add_(0.05 * torch.randn(weight.shape, generator=generator(1, "shake")).to(device))
    critic = load_discriminator(
        params,
        backbone,
        generator(0, "critic"),
        lora_rank=params.lora_rank,
        precision=params.precision,
        checkpointed=params.train.gradient_checkpointing == "all",
    )
    captioner = load_teacher(params, device, dtype)
    segmenter = load_segmenter(params, device, dtype)
    shape = backbone.latent_shape(params.resolution)
    rng = generator(2, "batch")
    batch = Batch(
        iteration=3,
        prompts=["a red ball and a blue cube", "two green stars", "a pink ring"],
        entities=[[Entity("ball", (2, 3)), Entity("cube", (6, 7))], [], [Entity("ring", (2, 3))]],
        reference=torch.randn(3, *shape, generator=rng),
        real=RealImages(
            torch.randn(2, *shape, generator=rng),
            ["a black cross", "a red star and a cone"],
            [[Entity("cross", (2, 3))], [Entity("star", (2, 3)), Entity("cone", (6,))]],
        )
        if params.image_batch
        else NO_IMAGES,
    )
    return Step(params, params.train, backbone, captioner, segmenter, critic), lora, batch


def gradient(weights) -> torch.Tensor:
    return torch.cat([torch.zeros_like(w).flatten() if w.grad is None else w.grad.flatten() for w in weights]).double()


def full_gradient(loss: torch.Tensor, weights) -> torch.Tensor:
    found = torch.autograd.grad(loss, weights, allow_unused=True)  # the layers after the last map have no part in it
    rows = [torch.zeros_like(w).flatten() if g is None else g.flatten() for g, w in zip(found, weights, strict=True)]
    return torch.cat(rows).double()


def relative(a: torch.Tensor, b: torch.Tensor) -> float:
    return float((a - b).norm() / b.norm())


def has_the_full_gradient(step: Step, lora: list[torch.nn.Parameter], batch: Batch) -> dict[str, float]:
    """See that a step leaves the gradient of the plain expression and says its value; returns the step's values."""
    loss = full_graph_loss(step, batch)
    expected = full_gradient(loss, lora)
    values = step(batch)
    assert expected.norm() > 0
    assert relative(gradient(lora), expected) < 1e-5
    assert values["loss"] == pytest.approx(loss.item(), rel=1e-5)
    return values


@pytest.mark.parametrize("scheduler", ["ddpm", "ddim", "euler"])
@pytest.mark.parametrize("term", TERMS)
def test_replay_has_the_gradient_of_the_full_graph(make_params, term: str, scheduler: str) -> None:
    params = make_params(scheduler=scheduler, **TERMS[term])
    step, lora, batch = build(params)
    has_the_full_gradient(step, lora, batch)


def test_means_are_over_the_attribute_steps_as_well(make_params) -> None:
    """The region level of one layer is one term a step: its mean over two steps is half of their sum."""
    of = {**TERMS["attribute"], "beta": 0.0, "attribute_steps": 2}
    step, lora, batch = build(make_params(**of, attribute_reduction="mean"))
    step.layers = step.layers[:1]
    values = has_the_full_gradient(step, lora, batch)
    own, weights, same = build(make_params(**of))
    own.layers = own.layers[:1]
    assert own(same)["attribute"] == pytest.approx(2 * values["attribute"], rel=1e-6)
    assert relative(gradient(weights), 2 * gradient(lora)) < 1e-6


def test_sd15_replays_as_well(make_params, tiny) -> None:
    step, lora, batch = build(make_params(base_model=str(tiny / "sd15"), discriminator_model=str(tiny / "sd15")))
    has_the_full_gradient(step, lora, batch)


def test_the_chunk_changes_nothing(make_params) -> None:
    results = []
    for chunk in (1, 2, 32):
        params = make_params(alpha=1.0, beta=0.5)
        params = params.model_copy(update={"train": params.train.model_copy(update={"device_batch": chunk})})
        step, lora, batch = build(params)
        step(batch)
        results.append((gradient(lora), gradient(step.discriminator.trainable_parameters())))
    for lora_gradient, critic_gradient in results[1:]:
        assert relative(lora_gradient, results[0][0]) < 1e-5
        assert relative(critic_gradient, results[0][1]) < 1e-5


class Reads(TorchDispatchMode):
    """Counts tensors of one number that Python reads; on a GPU each makes the host wait."""

    total = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.total += function is torch.ops.aten._local_scalar_dense.default
        return function(*args, **(kwargs or {}))


def test_no_chunk_reads_a_number(make_params, monkeypatch) -> None:
    """The samplers read their schedules, and draws on the CPU are read, equally often however many chunks there are.

    But for the segmenter, which looks once a chunk whether what it computed are numbers.
    """
    monkeypatch.setattr("comat.segmenters.clipseg.finite", lambda values, part, dtype: values)
    totals = []
    for chunk in (1, 32):
        params = make_params(alpha=1.0, beta=0.5)
        params = params.model_copy(update={"train": params.train.model_copy(update={"device_batch": chunk})})
        step, _, batch = build(params)
        step(batch)  # the segmenter encodes each noun once
        with Reads() as reads:
            step(batch)
        totals.append(reads.total)
    assert totals[0] == totals[1] > 0


def test_an_image_that_overflows_is_a_step_that_does_not_count(make_params, monkeypatch) -> None:
    """Not an error of the segmenter, which is shown numbers: the step is skipped, whoever else looks at the image."""
    step, _, batch = build(make_params(**TERMS["attribute"]))
    assert math.isfinite(step(batch)["masks_empty"])
    decode = step.backbone.decode
    monkeypatch.setattr(step.backbone, "decode", lambda z: decode(z) * math.inf)
    values = step(batch)
    assert math.isnan(values["masks_empty"]) and values["masks"] == 3


def test_gradients_reach_lora_and_discriminator_alone(make_params) -> None:
    step, lora, batch = build(make_params(alpha=1.0, beta=0.5))
    trained = {id(w) for w in (*lora, *step.discriminator.trainable_parameters())}
    parts = [step.backbone.denoiser, step.backbone.vae, *step.backbone.text_encoders]
    parts += [step.captioner.model, step.segmenter.model, step.discriminator._backbone.denoiser]
    step(batch)
    for weight in (w for part in parts for w in part.parameters()):
        assert id(weight) in trained or (weight.grad is None and not weight.requires_grad)
    assert gradient(lora).norm() > 0
    assert gradient(step.discriminator.trainable_parameters()).norm() > 0


def test_the_two_players_do_not_touch_each_other(make_params) -> None:
    step, lora, batch = build(make_params(**TERMS["adversarial"]))
    z = torch.randn(3, *step.backbone.latent_shape(16), generator=generator(0, "z"))
    step.discriminate(z, batch)
    assert all(w.grad is None for w in lora)
    for weight in step.discriminator.trainable_parameters():
        weight.grad = None
    step.image_gradient(z, batch.prompts, batch, 3, 0)
    assert all(w.grad is None for w in step.discriminator.trainable_parameters())


def test_a_part_that_is_off_needs_no_model(make_params) -> None:
    params = make_params(concept_activation=False, alpha=0.0, beta=0.0, lambda_adv=1.0)
    full, lora, batch = build(params)
    step = Step(params, params.train, full.backbone, None, None, full.discriminator)
    assert step(batch)["i2t"] == 0.0
    assert gradient(lora).norm() > 0


def test_merging_restores_the_weights_exactly(make_params) -> None:
    step, _, _ = build(make_params())
    before = {name: value.clone() for name, value in step.backbone.denoiser.state_dict().items()}
    with merged(step.backbone.denoiser):
        inside = step.backbone.denoiser.state_dict()
        assert any(not torch.equal(before[name], inside[name]) for name in before)
    after = step.backbone.denoiser.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_the_crop_of_real_images_differs_from_iteration_to_iteration(make_params) -> None:
    """At 448 px offsets are 0, 1 or 2 in both directions: one crop for five iterations is one chance in 6,561."""
    step, _, batch = build(make_params(alpha=0.0, beta=0.0, lambda_adv=0.0, resolution=448))
    z0 = torch.randn(1, *step.backbone.latent_shape(448), generator=generator(0, "z0"))
    found = [step.image_gradient(z0, batch.real.captions[:1], None, 1, iteration).z0 for iteration in range(5)]
    assert any(not torch.equal(found[0], other) for other in found[1:])


def with_checkpointing(params, of: str):
    return params.model_copy(update={"train": params.train.model_copy(update={"gradient_checkpointing": of})})


@pytest.mark.parametrize("model", ["sdxl", "sd15"])
@pytest.mark.parametrize("term", TERMS)
def test_checkpointing_changes_no_gradient(make_params, tiny, term: str, model: str) -> None:
    """Of LoRA and of the discriminator; the attribute term reads maps that leave their block beside its output."""
    results = []
    for of in ("none", "decoder", "all"):
        where = {"base_model": str(tiny / model), "discriminator_model": str(tiny / model)}
        step, lora, batch = build(with_checkpointing(make_params(**TERMS[term], **where), of))
        step(batch)
        found = [lora, step.discriminator.trainable_parameters()] if step.discriminator else [lora]
        results.append([gradient(weights) for weights in found])
    for plain, *checkpointed in zip(*results, strict=True):
        assert plain.norm() > 0 and all(relative(again, plain) < 1e-5 for again in checkpointed)


def kept_bytes(call) -> int:
    """Bytes of the storages that autograd keeps while `call` runs, weights too; of a checkpointed block its inputs."""
    storages = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storages[tensor.untyped_storage()._cdata] = tensor.untyped_storage()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        call()
    return sum(storage.nbytes() for storage in storages.values())


@pytest.mark.parametrize("model", ["sdxl", "sd15"])
def test_checkpointing_keeps_less(make_params, tiny, model: str) -> None:
    """Between a forward and a backward pass of the online UNet, with and without maps, of the discriminator's, and of
    the decoder.
    """
    where = {"base_model": str(tiny / model), "discriminator_model": str(tiny / model)}
    of = ("none", "decoder", "all")
    plain, decoder, whole = (kept_by_parts(with_checkpointing(make_params(**where), one)) for one in of)
    assert all(whole[part] < plain[part] for part in plain)
    assert decoder == {**plain, "decoder": whole["decoder"]}


def kept_by_parts(params) -> dict[str, int]:
    step, _, batch = build(params)
    z = torch.randn(3, *step.backbone.latent_shape(64), generator=generator(0, "z"))
    prompts, t = step.backbone.encode_prompts(batch.prompts), torch.tensor(500)
    latent = z.clone().requires_grad_()
    found = {
        "discriminator": kept_bytes(lambda: step.discriminator(z)),
        "decoder": kept_bytes(lambda: step.backbone.decode(latent)),
    }
    for name, layers in (("replay", ()), ("replay with maps", step.layers)):
        with recorded_maps(step.backbone.denoiser, layers):
            found[name] = kept_bytes(lambda: step.backbone.guided(z, t, prompts, 5.0))
    return found


def test_each_real_image_has_its_own_tau(make_params) -> None:
    """A function of the seed, the iteration and the image's place in the whole batch: no share changes it."""
    step, _, _ = build(make_params(sampling_steps=50))
    sampler = step.backbone.sampler("ddpm", 50, (8, 8))
    together = step.draw_real_steps(3, range(8), sampler)
    alone = [step.draw_real_steps(3, [row], sampler) for row in range(8)]
    assert together == ([start for (start,), _ in alone], [steps for _, (steps,) in alone])
    starts, steps = together
    assert len(set(starts)) > 1 and all(start <= min(own) for start, own in zip(starts, steps, strict=True))
    taus = [int(sampler.timesteps[start]) for start in starts]
    assert all(180 <= tau <= 600 for tau in taus)  # the last step at or below a tau of [200, 600]


def test_a_sample_that_waits_is_left_alone(make_params) -> None:
    """Three steps; the second sample joins at the last one: what it sees there is its first latent."""
    step, _, _ = build(make_params())
    backbone, own = step.backbone, [generator(0, "noise", row) for row in range(2)]
    z, prompts = noise(backbone.latent_shape(16), own), backbone.encode_prompts(["a red cube", "a blue star"])
    sampler = make_sampler("ddim", backbone.scheduler_config, 3)
    done = rollout(backbone, sampler, z, prompts, 5.0, own, starts=[0, 2], record=[[0, 2], [2]], chunk=2)
    assert done.rows == {0: [0], 2: [0, 1]}
    assert torch.equal(done.inputs[2][1], z[1]) and not torch.equal(done.inputs[2][0], z[0])
    assert [len(leaf) for leaf in done.leaves.values()] == [1, 2]
