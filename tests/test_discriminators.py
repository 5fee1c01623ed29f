"""Discriminators: around any diffusion model's UNet, or on decoded images; and what they call real."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from torch.testing import assert_close

from comat.diffusion.backbones import load_base
from comat.discriminators import load_discriminator
from comat.errors import UserError
from comat.method.fidelity_preservation import discriminator_loss
from comat.randomness import generator
from comat.tokenizers import find_columns
from comat.training.data import TrainingData
from tests.test_stages import params_of

KINDS = [("denoiser", "sdxl"), ("denoiser", "sd15"), ("dino", "dino"), ("dino", "dinov2")]


def build(make_params, tiny: Path, kind: str, model: str, **changes):
    params = make_params(discriminator=kind, discriminator_model=str(tiny / model), **changes)
    backbone = load_base(params.base_model, precision=params.precision)
    critic = load_discriminator(
        params,
        backbone,
        generator(0, "critic"),
        lora_rank=params.lora_rank,
        precision=params.precision,
        checkpointed=params.train.gradient_checkpointing == "all",
    )
    return backbone, critic


def latents(count: int, purpose: str = "z") -> torch.Tensor:
    return torch.randn(count, 4, 8, 8, generator=generator(0, purpose))


@pytest.mark.parametrize(("kind", "model"), KINDS)
def test_it_learns_to_tell_two_latents_apart(make_params, tiny: Path, kind: str, model: str) -> None:
    _, critic = build(make_params, tiny, kind, model)
    real, fake = latents(2, "real"), latents(2, "fake")
    optimizer = torch.optim.Adam(critic.trainable_parameters(), 0.01)
    losses = []
    for _ in range(30):
        optimizer.zero_grad()
        loss = discriminator_loss(critic(real), critic(fake)).mean()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.95 * losses[0]


@pytest.mark.parametrize(("kind", "model"), KINDS)
def test_its_gradient_reaches_the_latent_and_its_own_weights_alone(make_params, tiny: Path, kind, model) -> None:
    backbone, critic = build(make_params, tiny, kind, model)
    z = latents(2).requires_grad_()
    critic(z)[0].sum().backward()
    assert z.grad[0].abs().max() > 0
    assert z.grad[1].abs().max() == 0
    trained = {id(weight) for weight in critic.trainable_parameters()}
    frozen = [*backbone.vae.parameters(), *backbone.denoiser.parameters(), *critic.parameters()]
    assert all(weight.grad is None for weight in frozen if id(weight) not in trained)


@pytest.mark.parametrize(("kind", "model"), KINDS)
def test_its_trained_weights_are_all_its_state(make_params, tiny: Path, kind: str, model: str) -> None:
    _, critic = build(make_params, tiny, kind, model)
    with torch.no_grad():
        for weight in critic.trainable_parameters():
            weight.add_(torch.randn(weight.shape, generator=generator(0, "shake")) / 10)
    _, other = build(make_params, tiny, kind, model)
    assert not torch.equal(other(latents(2)), critic(latents(2)))
    other.load_trainable_state({name: value.clone() for name, value in critic.trainable_state().items()})
    assert_close(other(latents(2)), critic(latents(2)))


@pytest.mark.parametrize(("kind", "model"), KINDS)
@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_its_trained_weights_stay_float32(make_params, tiny: Path, kind: str, model: str, precision: str) -> None:
    _, critic = build(make_params, tiny, kind, model, precision=precision)
    logits = critic(latents(2))
    assert {logits.dtype, *(weight.dtype for weight in critic.trainable_parameters())} == {torch.float32}
    assert logits.isfinite().all()


def test_the_unet_sees_the_null_prompt_of_its_own_text_encoder(make_params, tiny: Path) -> None:
    """SD1.5's UNet judges SDXL's latents with SD1.5's encoding of the empty prompt, 8 features wide, not SDXL's 16."""
    backbone, critic = build(make_params, tiny, "denoiser", "sd15")
    own = load_base(str(tiny / "sd15")).null.tokens
    assert_close(critic._backbone.null.tokens, own)
    assert own.shape[-1] == 8 and backbone.null.tokens.shape[-1] == 16


def test_a_captioner_is_no_discriminator(make_params, tiny: Path) -> None:
    with pytest.raises(UserError, match=r"expected a DINO \(vit\) or a DINOv2 \(dinov2\), found blip"):
        build(make_params, tiny, "dino", "blip")
    with pytest.raises(UserError, match=r"cannot load model_index.json"):
        build(make_params, tiny, "denoiser", "dino")


def with_image_size(tiny: Path, folder: Path, sides: list[int]) -> Path:
    """The tiny DINO with both sides of its input in its configuration, as some have them."""
    shutil.copytree(tiny / "dino", folder / "dino")
    config = json.loads((folder / "dino/config.json").read_text())
    (folder / "dino/config.json").write_text(json.dumps(config | {"image_size": sides}))
    return folder


def test_an_image_size_may_be_given_as_two_sides(make_params, tiny: Path, tmp_path: Path) -> None:
    side = json.loads((tiny / "dino/config.json").read_text())["image_size"]
    _, one = build(make_params, tiny, "dino", "dino")
    _, two = build(make_params, with_image_size(tiny, tmp_path, [side, side]), "dino", "dino")
    z = latents(2)
    assert torch.equal(one(z), two(z))


def test_a_discriminator_of_images_that_are_not_square_is_refused(make_params, tiny: Path, tmp_path: Path) -> None:
    side = json.loads((tiny / "dino/config.json").read_text())["image_size"]
    folder = with_image_size(tiny, tmp_path, [side // 2, side * 2])  # as many patches
    with pytest.raises(UserError, match=f"of square images, its image_size is {side // 2} x {side * 2} px"):
        build(make_params, folder, "dino", "dino")


def test_real_is_what_the_parameter_says(project: Path) -> None:
    """Table 3: the original model's latents of the same prompts, or latents of real images."""
    folders = [
        project / "data" / name
        for name in ("prompts", "entities", "reference_latents", "image_latents", "caption_entities")
    ]
    params = params_of(project)
    for source, store in (("generated", "reference"), ("real_world", "real_world")):
        changed = params.model_copy(update={"image_batch": 0})
        data = TrainingData(changed, source, changed.train.guard, *folders, find_columns(changed.base_model))
        rows = [getattr(data, store)[id]["latents"] for id in getattr(data, store).ids]
        batch = data.batch(0)
        assert len(batch.reference) == params.global_batch and not batch.real
        assert all(any(torch.equal(z, row) for row in rows) for z in batch.reference)
    nothing = params.model_copy(update={"image_batch": 0, "lambda_adv": 0.0})
    data = TrainingData(nothing, "real_world", nothing.train.guard, *folders, find_columns(nothing.base_model))
    assert data.images is None and data.real_world is None and data.batch(0).reference is None
