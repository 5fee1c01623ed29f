"""What a family of base models cannot do, or does not go with, is said."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from comat.diffusion.backbones import load_base
from comat.errors import UserError
from comat.models.fit import check_base, check_checkpointing
from comat.models.names import ModelName
from comat.models.record import check_models
from tests.tiny_families import loaded


def test_a_flow_model_is_drawn_by_its_own_sampler_alone(families: Path) -> None:
    with pytest.raises(UserError, match="trained by flow matching: set it to model"):
        load_base(str(families / "sd3")).sampler("ddpm", 4, (8, 8))


def test_an_autoencoder_that_cannot_be_checkpointed_is_said(families: Path) -> None:
    loaded(families / "sana").checkpoint_decoder()
    for name, asked in (("sana", "all"), ("sana", "none"), ("z_image", "decoder")):
        check_checkpointing(families / name, asked)
    for name in ("sana", "qwen_image"):
        with pytest.raises(UserError, match="gradient_checkpointing is decoder: diffusers does not checkpoint an Auto"):
            check_checkpointing(families / name, "decoder")


@pytest.mark.parametrize(
    ("name", "file", "changes", "message"),
    [
        ("sana", "vae/config.json", {"_class_name": "AutoencoderKL"}, "AutoencoderKL: expected AutoencoderDC"),
        ("z_image", "vae/config.json", {"latent_channels": 8}, "in_channels is 16: expected 8"),
        ("qwen_image", "vae/config.json", {"z_dim": 4}, "in_channels is 64: expected 16"),
        (
            "sana",
            "scheduler/scheduler_config.json",
            {"use_flow_sigmas": False},
            "use_flow_sigmas is False: expected True",
        ),
        (
            "sana",
            "scheduler/scheduler_config.json",
            {"prediction_type": "epsilon"},
            "prediction_type is epsilon: expected flow_prediction",
        ),
    ],
)
def test_a_model_of_other_parts_is_refused(
    families: Path, tmp_path: Path, name: str, file: str, changes: dict, message: str
) -> None:
    model = tmp_path / "model"
    shutil.copytree(families / name, model)
    check_base(model, ModelName("base_model", name, None))
    (model / file).write_text(json.dumps(json.loads((model / file).read_text()) | changes))
    with pytest.raises(UserError, match=message):
        check_base(model, ModelName("base_model", name, None))


def test_attribute_layers_are_chosen_by_name(families: Path) -> None:
    backbone = load_base(str(families / "sd3"))
    assert backbone.chosen_layers(None) == ["transformer_blocks.1.attn", "transformer_blocks.2.attn"]
    assert backbone.chosen_layers(["transformer_blocks.0.*"]) == ["transformer_blocks.0.attn"]
    with pytest.raises(UserError, match="matches none of the 3 layers"):
        backbone.chosen_layers(["up_blocks.*"])


def test_a_size_without_whole_patches_is_refused(families: Path) -> None:
    backbone = load_base(str(families / "sd3"))
    assert backbone.latent_shape(32) == (16, 16, 16)
    with pytest.raises(UserError, match="images of 34 px: expected a multiple of 4"):
        backbone.latent_shape(34)


@pytest.mark.parametrize(
    ("base", "critic", "changes", "message"),
    [
        ("sd3", "sd3", {"scheduler": "ddpm"}, "scheduler is ddpm: .* trained by flow matching: set it to model"),
        (
            "flux_schnell",
            "flux_dev",
            {"guidance_scale": 3.5},
            "guidance_scale is 3.5: .* takes no guidance: set",
        ),
        ("sd3", "pixart_sigma", {}, "discriminator_model .*: its denoiser takes latents of 4 channels: expected 16"),
        ("pixart_sigma", "flux_dev", {}, "takes latents of 16 channels: expected 4"),
    ],
)
def test_what_does_not_go_together_is_said_before_weights_are_read(
    make_params, families: Path, base: str, critic: str, changes: dict, message: str
) -> None:
    fits = {"scheduler": "model", "guidance_scale": 1.0, "base_model": str(families / base)}
    check_models(make_params(**fits, discriminator_model=str(families / base)))
    with pytest.raises(UserError, match=message):
        check_models(make_params(**{**fits, "discriminator_model": str(families / critic), **changes}))
