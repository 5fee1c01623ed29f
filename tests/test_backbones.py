"""Each family of base models: the stock pipeline's latents and pictures, replay's gradient, LoRA files, maps."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from diffusers import DDPMScheduler, DiffusionPipeline
from peft import PeftModel
from torch.utils._pytree import tree_leaves

from comat.diffusion.attention import AttentionMaps, recorded_maps
from comat.diffusion.backbones import Backbone, PromptEmbeddings, load_base
from comat.diffusion.backbones.autoencoder import decode
from comat.diffusion.lora import add_lora, export_lora, merged
from comat.diffusion.rollout import rollout
from comat.diffusion.schedulers import make_sampler
from comat.errors import UserError
from comat.randomness import generator, noise
from tests import tiny_families
from tests.test_replay import TERMS, build, gradient, has_the_full_gradient, relative
from tests.tiny_families import loaded

PROMPTS = ["A red ball and a blue cube", "two green stars"]
GUIDED = {"flux_schnell": (1.0,), "flux_dev": (1.0, 3.5)}


def shaken(weights: list[torch.nn.Parameter], size: float = 0.1) -> None:
    with torch.no_grad():
        for weight in weights:
            weight.add_(size * torch.randn(weight.shape, generator=generator(1, "shake")))


def ours(folder: Path, guidance: float, px: int, steps: int, tuned: bool) -> torch.Tensor:
    backbone = load_base(str(folder))
    if tuned:
        shaken(add_lora(backbone, 2, generator(0, "lora")))
        export_lora(backbone, folder / "lora")
    shape = backbone.latent_shape(px)
    own = [generator(0, "noise", row) for row in range(len(PROMPTS))]
    sampler = backbone.sampler("model", steps, shape[1:])
    z = sampler.first(noise(shape, own))
    with torch.no_grad(), merged(backbone.denoiser):
        return rollout(backbone, sampler, z, backbone.encode_prompts(PROMPTS), guidance, own, chunk=2).z0


def stock(folder: Path, guidance: float, px: int, steps: int, tuned: bool, output_type: str = "latent") -> torch.Tensor:
    """The same by diffusers, from the same noise; LoRA by `load_lora_weights`, under a name of its own, fused."""
    without = {"text_encoder_3": None, "tokenizer_3": None} if "without" in folder.name else {}
    pipeline = DiffusionPipeline.from_pretrained(folder, dtype=torch.float32, **without)
    pipeline.set_progress_bar_config(disable=True)
    if tuned and folder.name.startswith("pixart"):  # diffusers loads no LoRA for it; peft does
        pipeline.transformer = PeftModel.from_pretrained(pipeline.transformer, folder / "lora").merge_and_unload()
    elif tuned:
        pipeline.load_lora_weights(folder / "lora", adapter_name="comat")
        pipeline.set_adapters(["comat"], [1.0])
        pipeline.fuse_lora(adapter_names=["comat"])
    own = [generator(0, "noise", row) for row in range(len(PROMPTS))]
    backbone = load_base(str(folder))
    z = noise(backbone.latent_shape(px), own)
    options: dict = {"guidance_scale": guidance}
    if folder.name.startswith(("pixart", "sana")):
        options |= {"use_resolution_binning": False, "clean_caption": False}
    if folder.name == "z_image":  # by how much more than the prompt alone
        options["guidance_scale"] = guidance - 1
    if folder.name == "qwen_image":
        options = {"true_cfg_scale": guidance} | ({"negative_prompt": [" "] * len(PROMPTS)} if guidance > 1 else {})
    packed = folder.name.startswith(("flux", "qwen"))
    if packed:
        z = pipeline._pack_latents(z, *z.shape)
    found = pipeline(
        list(PROMPTS),  # Z-Image's writes what its template makes of them into the list
        height=px,
        width=px,
        num_inference_steps=steps,
        latents=z,
        generator=own,
        output_type=output_type,
        **options,
    ).images
    if packed and output_type == "latent":
        found = pipeline._unpack_latents(found, px, px, pipeline.vae_scale_factor)
    return found[:, :, 0] if found.ndim == 5 else found  # one frame of a video


ODD = [("z_image", 24)]
"""Sizes in px at which a family does something else: 36 patches, which Z-Image fills up to 64."""
CASES = [(name, scale) for name in tiny_families.NAMES for scale in GUIDED.get(name, (1.0, 4.0))]


@pytest.mark.parametrize("tuned", [False, True], ids=["base", "tuned"])
@pytest.mark.parametrize(("name", "guidance"), CASES)
def test_the_stock_pipeline_draws_the_same_latents(families: Path, name: str, guidance: float, tuned: bool) -> None:
    arguments = families / name, guidance, 32, 4, tuned
    assert relative(ours(*arguments).double(), stock(*arguments).double()) < 1e-5


@pytest.mark.parametrize(("name", "px"), ODD)
def test_the_stock_pipeline_draws_the_same_at_odd_sizes(families: Path, name: str, px: int) -> None:
    arguments = families / name, 4.0, px, 3, False
    assert relative(ours(*arguments).double(), stock(*arguments).double()) < 1e-5


@pytest.mark.parametrize("name", tiny_families.NAMES)
def test_replay_has_the_gradient_of_the_full_graph(make_params, families: Path, name: str) -> None:
    model = str(families / name)
    guidance = GUIDED.get(name, (4.0,))[-1]
    params = make_params(
        base_model=model, discriminator_model=model, scheduler="model", guidance_scale=guidance, **TERMS["sum"]
    )
    step, lora, batch = build(params)
    values = has_the_full_gradient(step, lora, batch)
    assert values["attribute"] != 0
    assert gradient(step.discriminator.trainable_parameters()).norm() > 0


def maps_of(backbone: Backbone, z: torch.Tensor, prompts: PromptEmbeddings, guidance: float) -> AttentionMaps:
    """Of all layers, in one call of the denoiser."""
    with torch.no_grad(), recorded_maps(backbone.denoiser, backbone.attention_layers()) as recording:
        backbone.guided(z, torch.tensor(500.0), prompts, guidance)
    return recording.collect(backbone.layout(z.shape[-2:]), len(z))


def take_attention_away(denoiser: torch.nn.Module) -> None:
    """What attention says is worth nothing from now on, so that what a token is depends on no other."""
    with torch.no_grad():
        for name, weight in denoiser.named_parameters():
            if name.endswith(("to_out.0.weight", "to_add_out.weight")):
                weight.zero_()
            elif name.startswith("single_transformer_blocks") and name.endswith("proj_out.weight"):
                weight[:, : weight.shape[0]].zero_()  # FLUX: attention's part, before that of the MLP


def moved(before: torch.Tensor, after: torch.Tensor) -> torch.Tensor:
    """Where two maps (..., L) divide what a pixel gives to these columns otherwise."""
    first, second = (maps / maps.sum(-1, keepdim=True) for maps in (before, after))
    return ~torch.isclose(first, second, rtol=1e-4, atol=1e-9)


@pytest.mark.parametrize(("name", "px"), [*((name, 32) for name in tiny_families.NAMES), *ODD])
def test_maps_are_the_softmax_over_what_a_pixel_attends_to(families: Path, name: str, px: int) -> None:
    """Shapes at 32 px: 16 x 16 latents, and patches of 2 x 2 or 1; a pixel's attention to the text is at most 1.

    A UNet's second block down, its middle and its first block up look at 8 x 8; SD2 has four heads there.

    Which rows and columns are whose the denoiser says itself. With attention's own output taken away another third word
    can change no score but those of column 2; and another patch at row 2, column 1 only what that pixel
    gives to the text.
    """
    backbone, guidance = load_base(str(families / name)), GUIDED.get(name, (4.0,))[-1]
    asked = PROMPTS if name != "z_image" else [PROMPTS[0], " ".join(PROMPTS * 4)]  # one of more than 32 tokens
    prompts = backbone.encode_prompts(asked)
    z = torch.randn(2, *backbone.latent_shape(px), generator=generator(0, "z"))
    maps = maps_of(backbone, z, prompts, guidance)
    layers = backbone.attention_layers()
    assert list(maps) == layers and set(backbone.map_layers()) < set(layers)
    unet = name.startswith(tiny_families.UNETS)
    joint = not unet and not name.startswith(("pixart", "sana"))
    coarse = ("down_blocks.1", "mid_block", "up_blocks.0")
    columns = prompts.tokens.shape[1]
    read = torch.ones(2, columns, dtype=torch.bool) if prompts.mask is None else prompts.mask != 0
    if name == "z_image":  # which fills each prompt up to 32 tokens and reads them, and no further than the longest
        filled = [32 * math.ceil(length / 32) for length in prompts.mask.sum(1).tolist()]
        columns = max(filled)
        read = torch.arange(columns) < torch.tensor(filled)[:, None]
        assert filled[0] == 32 < filled[1]
    for layer, values in maps.items():
        half = layer.startswith(coarse)
        side = z.shape[-1] // backbone.patch // (2 if half else 1)
        heads = 4 if half and name == "sd2" else 2
        assert values.shape == (2, heads, side, side, columns)
        total = values.sum(-1)
        assert (total.max() < 1) if joint else torch.allclose(total, torch.ones(()))
        seen = read[:, None, None, None].expand_as(values)
        assert (values[seen] > 0).all() and not values[~seen].any()  # padding is not read

    take_attention_away(backbone.denoiser)
    maps, patch = maps_of(backbone, z, prompts, guidance), backbone.patch
    tokens, other = prompts.tokens.clone(), z.clone()
    tokens[:, 2] += torch.randn(tokens[:, 2].shape, generator=generator(0, "word"))
    other[:, :, 2 * patch : 3 * patch, patch : 2 * patch] += 1
    for layer, values in maps_of(backbone, z, replace(prompts, tokens=tokens), guidance).items():
        rest = [column for column in range(columns) if column != 2]
        assert not moved(maps[layer][..., rest], values[..., rest]).any()
        assert moved(maps[layer], values)[..., 2].float().mean() > 0.9  # to some pixel both words may be alike
    if unet or name.startswith("sana"):  # whose convolutions let a pixel know of others
        return
    for layer, values in maps_of(backbone, other, prompts, guidance).items():
        changed = moved(maps[layer], values).any(-1)
        assert changed[:, :, 2, 1].all() and changed.sum() == changed[:, :, 2, 1].numel()


def test_joint_maps_by_hand() -> None:
    """One head, two pixels, two text tokens behind; scores are products of one number."""
    from comat.diffusion.attention import _Attended, _maps, joint_layout

    q = torch.tensor([1.0, 2.0, 5.0, 5.0]).view(1, 1, 4, 1)
    k = torch.tensor([0.0, 1.0, 2.0, 3.0]).view(1, 1, 4, 1)
    found = _maps(_Attended(q, k, None, 1.0), joint_layout((1, 2), 1, text_first=False), 1)
    first, second = (torch.tensor([0.0, 1.0, 2.0, 3.0]) * times for times in (1, 2))
    expected = torch.stack([first.softmax(0)[2:], second.softmax(0)[2:]]).view(1, 1, 1, 2, 2)
    assert torch.allclose(found, expected)
    found = _maps(_Attended(q.flip(2), k.flip(2), None, 1.0), joint_layout((1, 2), 1, text_first=True), 1)
    assert torch.allclose(found, expected.flip(3).flip(4))


def signal_to_noise(noisy: torch.Tensor, clean: torch.Tensor, drawn: torch.Tensor) -> float:
    """p / q of noisy = p clean + q drawn, by least squares over all values."""
    parts = torch.stack([clean.flatten(), drawn.flatten()], 1).double()
    p, q = torch.linalg.lstsq(parts, noisy.flatten().double()[:, None]).solution.flatten().tolist()
    return p / q


@pytest.mark.parametrize(("tau", "ratio"), [(1, 24.205), (200, 1.7493), (600, 0.4377), (999, 0.06842)])
def test_a_timestep_means_the_same_corruption_on_both(tau: int, ratio: float) -> None:
    """Signal to noise of one latent and one noise, mixed by diffusers with Stable Diffusion's betas and by a flow.

    `ratio` is sqrt(a / (1 - a)), a the product of all 1 - beta up to tau, beta even in its root from 0.00085 to 0.012.
    Of a flow's levels s = k / 1000 the first that is not noisier is taken: its ratio (1 - s) / s is larger by less than
    one level's share, 0.001 / (s (1 - s)), which at these timesteps is 2.7 % at most (tau 1, s = 0.04).
    """
    clean, drawn = (torch.randn(1, 16, 8, 8, generator=generator(0, name)) for name in ("clean", "drawn"))
    diffusion = DDPMScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear")
    flow = make_sampler("model", {"shift": 1.0}, 1000, flow=True)
    theirs = signal_to_noise(diffusion.add_noise(clean, drawn, torch.tensor([tau])), clean, drawn)
    start = flow.start(tau)
    noisier, ours = (signal_to_noise(flow.noisy(clean, drawn, [i]), clean, drawn) for i in (start - 1, start))
    assert theirs == pytest.approx(ratio, rel=1e-4)
    assert noisier < theirs < ours < 1.027 * theirs


def test_a_timestep_of_pixart_is_noisier_than_stable_diffusion_s(families: Path) -> None:
    """Linear betas from 0.0001 to 0.02: at 600 sqrt(a / (1 - a)) is 0.162, where Stable Diffusion's is 0.438."""
    sampler = loaded(families / "pixart_sigma").sampler("ddpm", 1000, (8, 8))
    clean, drawn = (torch.randn(1, 4, 8, 8, generator=generator(0, name)) for name in ("clean", "drawn"))
    assert sampler.start(600) == 399  # timesteps 999, 998, ...
    assert signal_to_noise(sampler.noisy(clean, drawn, [399]), clean, drawn) == pytest.approx(0.162, abs=5e-4)


def test_a_model_without_guidance_refuses_some(families: Path) -> None:
    with pytest.raises(UserError, match="takes no guidance: set it to 1"):
        ours(families / "flux_schnell", 3.5, 32, 2, tuned=False)


@pytest.mark.parametrize("name", ["sd15", "sd2", "sdxl", "sana", "qwen_image", "z_image"])
def test_the_autoencoder_is_asked_as_the_stock_pipeline_does(families: Path, name: str) -> None:
    """The picture of the same latents; and latents of a picture are in the units that it decodes."""
    backbone, px = loaded(families / name), 32
    z = ours(families / name, 1.0, px, 2, tuned=False)
    with torch.no_grad():
        found = backbone.decode(z).clamp(0, 1)
    expected = stock(families / name, 1.0, px, 2, tuned=False, output_type="pt")
    assert found.shape == (2, 3, px, px) and relative(found, expected) < 1e-5
    latents, vae = backbone.encode_images(found), backbone.vae
    assert latents.shape == z.shape
    pixels = 2 * found - 1
    if name == "sana":
        expected = 0.41407 * vae.encode(pixels).latent
    elif name == "qwen_image":
        mean, deviation = (torch.tensor(vae.config[f"latents_{key}"]).view(1, 16, 1, 1) for key in ("mean", "std"))
        expected = (vae.encode(pixels[:, :, None]).latent_dist.mean[:, :, 0] - mean) / deviation
    elif name in tiny_families.UNETS:
        expected = 0.5 * vae.encode(pixels).latent_dist.mean
    else:
        expected = 1.5 * (vae.encode(pixels).latent_dist.mean - 0.06)
    assert torch.allclose(latents, expected, atol=1e-5)


def test_an_image_is_filled_up_before_the_text() -> None:
    """36 patches are 64 tokens of Z-Image, and the text is what is behind them."""
    from comat.diffusion.attention import joint_layout

    rows, columns, size = joint_layout((12, 12), 2, text_first=False, multiple=32)(96, 96)
    assert (rows, columns, size) == (slice(0, 36), slice(64, None), (6, 6))


def test_a_sample_that_joins_later_has_a_trajectory_of_its_own(families: Path) -> None:
    """With a scheduler that remembers the step before; together the two samples end where each ends alone."""
    backbone = load_base(str(families / "pixart_sigma"))
    own, starts = [generator(0, "noise", row) for row in range(2)], [0, 2]
    z = noise(backbone.latent_shape(32), own)
    sampler = backbone.sampler("model", 5, z.shape[-2:])
    assert type(sampler.scheduler).__name__ == "DPMSolverMultistepScheduler"
    prompts = backbone.encode_prompts(PROMPTS)

    def ended(rows: slice) -> torch.Tensor:
        return rollout(backbone, sampler, z[rows], prompts[rows], 4.0, own[rows], starts=starts[rows], chunk=2).z0

    with torch.no_grad():
        together = ended(slice(0, 2))
        assert torch.allclose(together, torch.cat([ended(slice(0, 1)), ended(slice(1, 2))]), atol=1e-5)


@pytest.mark.parametrize("name", ["sd3", "sana", "qwen_image"])  # one of each autoencoder
def test_a_decoded_pixel_keeps_its_gradient_where_it_is_saturated(families: Path, name: str) -> None:
    """With a last layer a hundred times as strong pixels are far outside of black and white."""
    backbone = load_base(str(families / name))
    with torch.no_grad():
        backbone.vae.decoder.conv_out.weight.mul_(100)
    z = torch.randn(2, *backbone.latent_shape(64), generator=generator(0, "z")).requires_grad_()
    images = backbone.decode(z)
    outside = (images < -0.1) | (images > 1.1)
    assert outside.any()
    (gradient,) = torch.autograd.grad(images[outside].sum(), z)
    assert gradient.abs().sum() > 0


def test_what_qwens_autoencoder_decodes_is_what_diffusers_decodes(families: Path) -> None:
    vae = load_base(str(families / "qwen_image")).vae
    z = 3 * torch.randn(2, vae.config.z_dim, 4, 4, generator=generator(0, "z"))
    mean, std = (torch.tensor(vae.config[f"latents_{name}"]).view(1, -1, 1, 1) for name in ("mean", "std"))
    expected = vae.decode((z * std + mean)[:, :, None]).sample[:, :, 0]
    assert torch.equal(decode(vae, z).clamp(0, 1), expected / 2 + 0.5) and (expected.abs() < 1).any()


@pytest.mark.parametrize("name", tiny_families.NAMES)
def test_all_that_a_denoiser_reads_is_where_its_latents_are(families: Path, monkeypatch, name: str) -> None:
    """Samplers keep timesteps on the CPU, and only UNets bring them over themselves; "meta" stands for a GPU."""

    class Asked(Exception):
        pass

    backbone = load_base(str(families / name))
    z = torch.randn(1, *backbone.latent_shape(32)).to("meta")
    prompts, backbone.null = (own.to(z.device) for own in (backbone.encode_prompts(PROMPTS[:1]), backbone.null))
    t = backbone.sampler("model", 4, z.shape[-2:]).timesteps[1]
    read = []

    def forward(*args: object, **kwargs: object) -> None:
        read.extend(one.device for one in tree_leaves([args, kwargs]) if torch.is_tensor(one))
        raise Asked

    monkeypatch.setattr(backbone.denoiser, "forward", forward)
    for scale in GUIDED.get(name, (1.0, 4.0)):
        with pytest.raises(Asked):
            backbone.guided(z, t, prompts, scale)
    assert t.device.type == "cpu" and len(read) > 2 and set(read) == {z.device}
