"""Whether a base model is one that is drawn as what it is: told from its configurations, before weights are downloaded.

What stands here is either carried by `comat.diffusion` or refused by file and key; nothing is passed over.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from comat.errors import UserError
from comat.models.families import BY_PIPELINE, Family, has_part
from comat.models.names import ModelName
from comat.storage.json_files import read_json
from comat.storage.yaml_files import shown

SCHEDULE_KEYS = (
    "num_train_timesteps",
    "beta_start",
    "beta_end",
    "beta_schedule",
    "trained_betas",
    "rescale_betas_zero_snr",
    "prediction_type",
    "timestep_spacing",
    "steps_offset",
)
"""What of a model's schedule the samplers take; the rest is a matter of the sampler that wrote it."""
SPACINGS = ("leading", "trailing", "linspace")
LINSPACE = ("Euler", "LMS", "DPMSolver", "UniPC", "Heun", "KDPM2", "DEIS", "SASolver")
"""Schedulers of diffusers whose timesteps are spread evenly where their configuration does not say how."""
LEADING = ("DDPM", "DDIM", "PNDM", "LCM", "TCD")
FLOW = "FlowMatchEulerDiscreteScheduler"
FLOW_BY_DPM = "DPMSolverMultistepScheduler"
"""Solves flows too, where its configuration says so (Sana's does)."""
OWN = ("DDPM", "DDIM", "EulerDiscrete", "EulerAncestralDiscrete", "DPMSolverMultistep", "UniPCMultistep", "LCM", "TCD")
"""Schedulers of diffusers that may be a model's own: one prediction of the denoiser a step, and as many steps as asked.
"""
TIMESTEPS = 1000

Problem = tuple[str, str]
"""What a configuration says (file, key and value) and what was expected."""


def check_base(folder: Path, model: ModelName, vae: Path | None = None) -> None:
    """Refuse a base model that would be drawn as something else, or whose parts do not fit together.

    Args:
        folder: holds the configurations of `model`.
        vae: the folder of another autoencoder that takes the place of its own.

    Raises:
        UserError: naming the file, its key, what it says and what was expected.
    """
    for found, expected in _problems(folder, vae):
        raise UserError(f"{model.key} {model.name!r}: {found}: expected {expected}; name another base model")


def check_kind(folder: Path, model: ModelName) -> None:
    """Refuse a model of transformers that is not of the kind that its parameter asks for.

    Raises:
        UserError: naming what it is and what was expected.
    """
    config = _read(folder, "config.json") or {}
    found = config.get("model_type")
    if model.kinds and found is not None and found not in model.kinds:
        raise UserError(f"{model.key} {model.name!r}: it is a {found}: expected a {' or '.join(model.kinds)}")


def _problems(folder: Path, vae: Path | None) -> Iterator[Problem]:
    index = _read(folder, "model_index.json")
    if index is None:
        yield "it has no model_index.json", f"a pipeline of diffusers: {' or '.join(BY_PIPELINE)}"
        return
    family = BY_PIPELINE.get(str(index.get("_class_name")))
    if family is None:
        yield _said("model_index.json", index, "_class_name"), " or ".join(BY_PIPELINE)
        return
    for text in family.texts:
        if not text.optional and not has_part(index, text.encoder):
            yield f"model_index.json lists no {text.encoder}", f"the one that its {family.denoiser} reads"
    schedule = _read(folder, "scheduler/scheduler_config.json")
    if schedule is None:
        yield "it has no scheduler/scheduler_config.json", "the noise schedule that it was trained with"
        return
    yield from (
        (_said("scheduler/scheduler_config.json", schedule, key), expected)
        for key, expected in not_carried(schedule, family.flow)
    )
    denoiser, own = _read(folder, f"{family.denoiser}/config.json") or {}, _read(folder, "vae/config.json")
    other = _read(vae, "config.json") if vae else None
    if family.denoiser == "unet":
        yield from _unet_problems(denoiser, other or own or {})
    else:
        yield from _transformer_problems(denoiser, other or own or {}, family)
    if other and own:
        yield from _autoencoder_problems(own, other)
    for name, config in (("vae/config.json", own), ("the other autoencoder's config.json", other)):
        if config and config.get("_class_name", family.vae) != family.vae:
            yield _said(name, config, "_class_name"), family.vae
        scale = config.get("scaling_factor") if config else None
        if scale is not None and not (_is_number(scale) and 1e-4 < scale < 1e4):
            yield f"{name}: scaling_factor is {shown(scale)}", "a number above 0, some 0.18 or 0.13"
        for key in ("latents_mean", "latents_std"):
            if config and config.get(key) is not None and "z_dim" not in config:
                yield f"{name}: {key} is set", "none: latents are scaled by scaling_factor and shift_factor alone"


def _transformer_problems(transformer: Mapping[str, Any], vae: Mapping[str, Any], family: Family) -> Iterator[Problem]:
    channels = _latents(vae)
    found = transformer.get("in_channels")
    if channels and found is not None and found != channels * family.packing:
        yield (
            _said("transformer/config.json", transformer, "in_channels"),
            f"{channels * family.packing}, as its latents have {channels} channels",
        )


def _unet_problems(unet: Mapping[str, Any], vae: Mapping[str, Any]) -> Iterator[Problem]:
    channels = vae.get("latent_channels", unet.get("in_channels"))
    for key in ("in_channels", "out_channels"):
        if unet.get(key, channels) != channels:
            yield (
                _said("unet/config.json", unet, key),
                f"{channels}, as many as its latents have (an inpainting UNet takes more)",
            )
    for key, known in (("addition_embed_type", (None, "text_time")), ("encoder_hid_dim_type", (None,))):
        if unet.get(key) not in known:
            yield _said("unet/config.json", unet, key), " or ".join(str(value) for value in known)
    for key in ("class_embed_type", "time_cond_proj_dim"):
        if unet.get(key) is not None:
            yield _said("unet/config.json", unet, key), "none: it asks for an input that nothing gives it"


def _autoencoder_problems(own: Mapping[str, Any], other: Mapping[str, Any]) -> Iterator[Problem]:
    depths = [_levels(config) for config in (own, other)]
    if depths[0] != depths[1]:
        yield f"vae: another autoencoder of {depths[1]} levels", f"{depths[0]}, as the model's own has"
    channels = [_latents(config) or 4 for config in (own, other)]
    if channels[0] != channels[1]:
        yield f"vae: another autoencoder of {channels[1]} latent channels", f"{channels[0]}, as the model's own has"


def _levels(vae: Mapping[str, Any]) -> int:
    """Levels of an autoencoder's resolution, whatever its class calls them."""
    return next(
        (len(vae[key]) for key in ("block_out_channels", "encoder_block_out_channels", "dim_mult") if key in vae), 0
    )


def _latents(vae: Mapping[str, Any]) -> int | None:
    """Channels of an autoencoder's latents."""
    return vae.get("latent_channels", vae.get("z_dim"))


def not_carried(schedule: Mapping[str, Any], flow: bool = False) -> Iterator[tuple[str, str]]:
    """(key, what was expected) of what a `scheduler_config.json` says and no sampler here would heed.

    flow: whether the denoiser is of a family that is trained by flow matching.
    """
    name = str(schedule.get("_class_name", FLOW if flow else "DDPMScheduler"))
    if flow:
        if name not in (FLOW, FLOW_BY_DPM):
            yield "_class_name", f"{FLOW} or {FLOW_BY_DPM}"
        if name == FLOW_BY_DPM:
            solved: list[tuple[str, tuple[object, ...]]] = [
                ("use_flow_sigmas", (True,)),
                ("prediction_type", ("flow_prediction",)),
                ("thresholding", (None, False)),
            ]
            yield from _others(schedule, solved)
        flows: list[tuple[str, tuple[object, ...]]] = [
            ("num_train_timesteps", (None, TIMESTEPS)),
            ("invert_sigmas", (None, False)),
        ]
        yield from _others(schedule, flows)
        return
    if not name.startswith(LEADING + LINSPACE):
        yield "_class_name", "a schedule of Gaussian noise by betas, as of DDPM, DDIM, PNDM, Euler or DPMSolver"
    known: list[tuple[str, tuple[object, ...]]] = [
        ("prediction_type", (None, "epsilon", "v_prediction", "sample")),
        ("beta_schedule", (None, "linear", "scaled_linear", "squaredcos_cap_v2")),
        ("timestep_spacing", (None, *SPACINGS)),
        ("timestep_type", (None, "discrete")),
        ("variance_type", (None, "fixed_small", "fixed_small_log", "fixed_large", "fixed_large_log")),
        ("num_train_timesteps", (None, TIMESTEPS)),
        ("use_flow_sigmas", (None, False)),
    ]
    yield from _others(schedule, known)
    betas = schedule.get("trained_betas")
    if betas is not None and not (isinstance(betas, list) and len(betas) == TIMESTEPS and all(map(_is_beta, betas))):
        yield "trained_betas", f"{TIMESTEPS} numbers above 0 and at most 1"
    ends = [schedule[key] for key in ("beta_start", "beta_end") if schedule.get(key) is not None]
    for key in ("beta_start", "beta_end"):
        if schedule.get(key) is not None and not _is_beta(schedule[key]):
            yield key, "a number above 0 and at most 1"
    if len(ends) == 2 and all(map(_is_beta, ends)) and ends[0] > ends[1]:
        yield "beta_end", f"at least beta_start ({ends[0]})"
    offset = schedule.get("steps_offset")
    if offset is not None and not (type(offset) is int and 0 <= offset < TIMESTEPS):
        yield "steps_offset", f"a whole number from 0 to {TIMESTEPS - 1}"
    if schedule.get("rescale_betas_zero_snr") not in (None, False, True):
        yield "rescale_betas_zero_snr", "true or false"


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_beta(value: Any) -> bool:
    """Whether it is the variance of a step; NaN is not."""
    return _is_number(value) and 0 < value <= 1


def _others(schedule: Mapping[str, Any], known: list[tuple[str, tuple[object, ...]]]) -> Iterator[tuple[str, str]]:
    """The keys whose values are not among those that are known."""
    for key, values in known:
        if schedule.get(key) not in values:
            yield key, " or ".join(str(value) for value in values if value is not None)


def check_sampler(name: str, schedule: Mapping[str, Any], flow: bool) -> None:
    """See that a sampler, as the parameter `scheduler` names it, is one for the base model.

    Raises:
        UserError: saying which is.
    """
    if flow and name != "model":
        raise UserError(f"scheduler is {name}: this base model was trained by flow matching: set it to model")
    own = str(schedule.get("_class_name", "")).removesuffix("Scheduler")
    if name == "model" and not flow and own not in OWN:
        raise UserError(
            f"scheduler is model, and scheduler_config.json of the base model says {own or 'none'}: expected one of "
            f"{', '.join(OWN)}; set it to ddim"
        )


def check_drawing(folder: Path, scheduler: str, guidance_scale: float) -> None:
    """See that the base model in `folder`, which `check_base` has passed, can be drawn as the parameters say.

    Raises:
        UserError: naming the parameter.
    """
    family, denoiser, schedule = _parts(folder)
    check_sampler(scheduler, schedule, family.flow)
    if family.distilled and denoiser.get("guidance_embeds") is False and guidance_scale != 1:
        raise UserError(f"guidance_scale is {guidance_scale:g}: this base model takes no guidance: set it to 1.0")


def check_checkpointing(folder: Path, asked: str) -> None:
    """See that diffusers checkpoints the autoencoder of the base model in `folder`, where only that is asked for.

    Raises:
        UserError: if it does not.
    """
    vae = _parts(folder)[0].vae
    if asked == "decoder" and vae != "AutoencoderKL":
        raise UserError(
            f"train.gradient_checkpointing is decoder: diffusers does not checkpoint an {vae}: set it to all, which is "
            "then the denoiser alone, or to none"
        )


def check_judged(base: Path, discriminator: Path, model: ModelName) -> None:
    """See that a diffusion model reads the latents of another, whose discriminator it is to be.

    Raises:
        UserError: with the numbers of channels.
    """
    ours, theirs = (_channels(*_parts(folder)[:2]) for folder in (base, discriminator))
    if None not in (ours, theirs) and ours != theirs:
        raise UserError(
            f"{model.key} {model.name!r}: its denoiser takes latents of {theirs} channels: expected {ours}, as the "
            "base model's have; name another, or set discriminator to dino"
        )


def _parts(folder: Path) -> tuple[Family, dict[str, Any], dict[str, Any]]:
    """The family of a pipeline, and the configurations of its denoiser and schedule."""
    family = BY_PIPELINE[str((_read(folder, "model_index.json") or {}).get("_class_name"))]
    denoiser = _read(folder, f"{family.denoiser}/config.json") or {}
    return family, denoiser, _read(folder, "scheduler/scheduler_config.json") or {}


def _channels(family: Family, denoiser: Mapping[str, Any]) -> int | None:
    found = denoiser.get("in_channels")
    return found // family.packing if isinstance(found, int) else None


def spacing_of(schedule: Mapping[str, Any]) -> str:
    """How the model's own sampler spreads its timesteps, be it said or the default of the sampler's class."""
    named = schedule.get("timestep_spacing")
    if named is not None:
        return str(named)
    return "linspace" if str(schedule.get("_class_name", "")).startswith(LINSPACE) else "leading"


def check_steps(schedule: Mapping[str, Any], steps: int) -> None:
    """See that `steps` sampling steps begin where the noise is, at the end of the schedule.

    `leading` spacing leaves out what remains of 1000 divided by the steps: with 400 steps it would begin at 799.

    Raises:
        UserError: if they begin within the schedule or beyond its end; names the next number of steps that fits.
    """
    if spacing_of(schedule) != "leading" or _fits(schedule, steps):
        return
    near = min((n for n in range(1, TIMESTEPS + 1) if _fits(schedule, n)), key=lambda n: abs(n - steps))
    raise UserError(
        f"sampling_steps is {steps}: with the base model's leading spacing they begin at timestep "
        f"{_first_timestep(schedule, steps)} of {TIMESTEPS}, not where the noise is; set it to {near}"
    )


def _first_timestep(schedule: Mapping[str, Any], steps: int) -> int:
    return (steps - 1) * (TIMESTEPS // steps) + int(schedule.get("steps_offset") or 0)


def _fits(schedule: Mapping[str, Any], steps: int) -> bool:
    return steps * (TIMESTEPS // steps) >= 0.9 * TIMESTEPS and _first_timestep(schedule, steps) < TIMESTEPS


def _said(file: str, config: Mapping[str, Any], key: str) -> str:
    value = config.get(key)
    return f"{file}: {key} is " + (f"a list of {len(value)}" if isinstance(value, list) else str(value)[:60])


def _read(folder: Path | None, file: str) -> dict[str, Any] | None:
    if folder is None or not (folder / file).is_file():
        return None
    return read_json(folder / file, dict[str, Any], "a configuration", "download the model again")
