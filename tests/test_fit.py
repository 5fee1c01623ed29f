"""Models are taken as what they are, or refused: kinds, parts, schedules and the lock."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path

import diffusers
import pytest
import torch

from comat.diffusion.backbones import load_base
from comat.diffusion.schedulers import make_sampler
from comat.errors import UserError
from comat.judges.frechet import Features
from comat.models.fit import check_base, check_kind, check_steps, not_carried, spacing_of
from comat.models.lock import pinned
from comat.models.names import ModelName
from comat.models.record import check_models, write_lock
from comat.params import Params
from comat.training.warmup import warmup_loss

BETAS = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear", "num_train_timesteps": 1000}


def edit(path: Path, **changes: object) -> None:
    """Change keys of a JSON file; None removes one."""
    values = json.loads(path.read_text()) | changes
    path.write_text(json.dumps({key: value for key, value in values.items() if value is not None}))


# Judges and locks


def test_features_without_their_weights_are_refused(tiny: Path, tmp_path: Path) -> None:
    """A vision transformer saved without its pooler: its features would be random, others in every process."""
    with pytest.raises(UserError, match=r"features lacks \d+ weights .*pooler"):
        Features(str(tiny / "dino"), None, 32)


@pytest.mark.parametrize(
    ("key", "kinds", "message"),
    [
        ("captioner_model", ("git",), "it is a blip: expected a git"),
        ("x", ("vit", "dinov2"), "a vit or dinov2"),
    ],
)
def test_a_model_of_another_kind_is_refused_by_its_configuration(tiny: Path, key: str, kinds, message: str) -> None:
    with pytest.raises(UserError, match=message):
        check_kind(tiny / "blip", ModelName(key, str(tiny / "blip"), None, kinds=kinds))
    check_kind(tiny / "blip", ModelName(key, str(tiny / "blip"), None, kinds=("blip",)))


def test_the_lock_sees_files_that_were_added(make_params, base: Path, tmp_path: Path) -> None:
    """An index of shards would be read before the weights that the lock knows."""
    params = lockable(make_params(), base)
    write_lock(params, tmp_path / "models")
    pinned(params, tmp_path / "models", "base_model")
    (base / "unet/diffusion_pytorch_model.safetensors.index.json").write_text('{"weight_map": {}}')
    with pytest.raises(UserError, match=r"index.json: .* did not record this file"):
        pinned(params, tmp_path / "models", "base_model")


def lockable(params: Params, base: Path) -> Params:
    """With `base`, and without benchmarks whose models the tests have not made."""
    values = params.model_dump()
    values["evaluate"] |= {"oracle": True, "frechet": None}
    return Params.model_validate(values | {"base_model": str(base)})


# Bases are drawn as what they are


@pytest.mark.parametrize("name", ["ddpm", "ddim", "euler"])
@pytest.mark.parametrize(
    "schedule",
    [
        {"_class_name": "DDIMScheduler", "prediction_type": "v_prediction", "rescale_betas_zero_snr": True},
        {"_class_name": "DDPMScheduler", "trained_betas": [0.0001 + i * 1e-5 for i in range(1000)]},
        {"_class_name": "EulerDiscreteScheduler", "timestep_spacing": "trailing"},
        {"_class_name": "EulerDiscreteScheduler"},
        {"_class_name": "PNDMScheduler", "steps_offset": 1},
    ],
    ids=["zero snr", "trained betas", "trailing", "euler's own spacing", "pndm"],
)
def test_the_samplers_carry_the_model_s_schedule(name: str, schedule: dict) -> None:
    """The noise levels and timesteps are those that diffusers itself takes from the same configuration."""
    ours = make_sampler(name, BETAS | schedule, 10).scheduler
    kind = {"ddpm": "DDPMScheduler", "ddim": "DDIMScheduler", "euler": "EulerDiscreteScheduler"}[name]
    spacing = {"timestep_spacing": spacing_of(schedule)}
    stock = getattr(diffusers, kind).from_config(BETAS | schedule | spacing)
    stock.set_timesteps(10)
    assert torch.equal(ours.timesteps, stock.timesteps)
    assert torch.equal(ours.alphas_cumprod, stock.alphas_cumprod)
    assert ours.config["prediction_type"] == stock.config["prediction_type"]


@pytest.mark.parametrize(
    ("schedule", "key"),
    [
        ({"_class_name": "EDMDPMSolverMultistepScheduler"}, "_class_name"),
        ({"_class_name": "FlowMatchEulerDiscreteScheduler", "shift": 3.0}, "_class_name"),
        ({"prediction_type": "flow_prediction"}, "prediction_type"),
        ({"variance_type": "learned_range"}, "variance_type"),
        ({"timestep_type": "continuous"}, "timestep_type"),
        ({"num_train_timesteps": 500}, "num_train_timesteps"),
        ({"trained_betas": [0.1, 0.2]}, "trained_betas"),
        ({"beta_schedule": "sigmoid"}, "beta_schedule"),
        ({"beta_start": math.nan}, "beta_start"),
        ({"beta_start": -0.001}, "beta_start"),
        ({"beta_start": "0.001"}, "beta_start"),
        ({"beta_end": 1e30}, "beta_end"),
        ({"beta_end": 10**400}, "beta_end"),
        ({"beta_start": 0.012, "beta_end": 0.001}, "beta_end"),
        ({"trained_betas": [math.nan] * 1000}, "trained_betas"),
        ({"steps_offset": -5}, "steps_offset"),
        ({"steps_offset": 10**9}, "steps_offset"),
        ({"rescale_betas_zero_snr": "no"}, "rescale_betas_zero_snr"),
    ],
)
def test_a_schedule_that_is_not_carried_is_refused(make_params, base: Path, schedule: dict, key: str) -> None:
    """By the sampler, and before any download by the stage `models`."""
    assert key in [found for found, _ in not_carried(BETAS | schedule)]
    with pytest.raises(UserError, match=rf"scheduler_config.json of the base model: {key} is"):
        make_sampler("ddpm", BETAS | schedule, 10)
    edit(base / "scheduler/scheduler_config.json", **schedule)
    with pytest.raises(UserError, match=rf"base_model .*: scheduler/scheduler_config.json: {key} is .*: expected "):
        check_models(lockable(make_params(), base))


@pytest.mark.parametrize(
    ("file", "changes", "message"),
    [
        (
            "model_index.json",
            {"_class_name": "StableCascadeDecoderPipeline"},
            "model_index.json: _class_name is StableCascade",
        ),
        ("unet/config.json", {"in_channels": 9}, "in_channels is 9: expected 4.*inpainting"),
        ("unet/config.json", {"time_cond_proj_dim": 256}, "time_cond_proj_dim is 256: expected none"),
        ("unet/config.json", {"addition_embed_type": "image"}, "addition_embed_type is image"),
        ("vae/config.json", {"latents_mean": [0.0] * 4}, "latents_mean is set"),
        ("vae/config.json", {"scaling_factor": math.nan}, "scaling_factor is nan"),
        ("vae/config.json", {"scaling_factor": 0.0}, "scaling_factor is 0.0"),
    ],
)
def test_parts_that_do_not_fit_are_refused(make_params, base: Path, file: str, changes: dict, message: str) -> None:
    check_models(lockable(make_params(), base))
    edit(base / file, **changes)
    with pytest.raises(UserError, match=message):
        check_models(lockable(make_params(), base))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"block_out_channels": [8, 8, 8]}, "another autoencoder of 3 levels: expected 2"),
        ({"latent_channels": 16}, "takes more|another autoencoder of 16 latent channels: expected 4"),
    ],
)
def test_another_autoencoder_must_fit(base: Path, tmp_path: Path, changes: dict, message: str) -> None:
    shutil.copytree(base / "vae", tmp_path / "vae")
    model = ModelName("base_model", str(base), None, own_vae=False)
    check_base(base, model, tmp_path / "vae")
    edit(tmp_path / "vae/config.json", **changes)
    with pytest.raises(UserError, match=message):
        check_base(base, model, tmp_path / "vae")


@pytest.mark.parametrize("steps", [1, 5, 20, 50, 100, 250, 499])
def test_steps_that_begin_at_the_noise_are_taken(steps: int) -> None:
    check_steps(BETAS | {"steps_offset": 1}, steps)


@pytest.mark.parametrize(("steps", "near"), [(400, 333), (700, 500), (1000, 999)])
def test_steps_that_begin_elsewhere_are_refused_with_the_next_that_fit(steps: int, near: int) -> None:
    """400 steps of 1000 // 400 = 2 timesteps end at 799; 1000 with an offset of one would begin at 1000."""
    schedule = BETAS | {"steps_offset": 1}
    with pytest.raises(UserError, match=rf"sampling_steps is {steps}: .*set it to \d+$") as caught:
        make_sampler("ddpm", schedule, steps)
    proposed = int(str(caught.value).rpartition(" ")[2])
    check_steps(schedule, proposed)
    assert abs(proposed - steps) <= abs(near - steps)
    make_sampler("ddpm", schedule | {"timestep_spacing": "trailing"}, steps)


@pytest.mark.parametrize(("kind", "target"), [("epsilon", "eps"), ("sample", "z0"), ("v_prediction", "velocity")])
def test_the_warm_up_teaches_what_the_model_predicts(make_params, kind: str, target: str) -> None:
    """With a UNet that says zero the loss is the mean square of the target, which the seed gives."""
    backbone = load_base(make_params().base_model)
    backbone.scheduler_config = {**backbone.scheduler_config, "prediction_type": kind}
    for weight in backbone.denoiser.conv_out.parameters():
        weight.data.zero_()
    z0, prompts = torch.full((2, 4, 8, 8), 3.0), backbone.encode_prompts(["a", "b"])
    loss = float(warmup_loss(backbone, z0, prompts, torch.Generator().manual_seed(0), 0.1))
    rng = torch.Generator().manual_seed(0)
    t = torch.randint(1000, (2,), generator=rng)
    eps = torch.randn(z0.shape, generator=rng)
    kept = make_sampler("ddpm", backbone.scheduler_config, 1).scheduler.alphas_cumprod[t].view(2, 1, 1, 1)
    expected = {"eps": eps, "z0": z0, "velocity": kept.sqrt() * eps - (1 - kept).sqrt() * z0}[target]
    assert loss == pytest.approx(float(expected.square().mean()), rel=1e-4)
