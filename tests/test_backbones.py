"""Each family of base models: the stock pipeline's latents, replay's gradient, LoRA files, tokens and maps."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path

import pytest
import torch
from diffusers import DiffusionPipeline, SanaPipeline
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from peft import PeftModel
from sentencepiece import SentencePieceProcessor, SentencePieceTrainer
from transformers import Qwen2Tokenizer, T5Tokenizer

from benchmarks.full_graph import full_graph_loss
from comat.diffusion.attention import recorded_maps
from comat.diffusion.backbones import load_base, sana
from comat.diffusion.backbones.qwen_image import ASKED
from comat.diffusion.lora import add_lora, export_lora, merged
from comat.diffusion.rollout import rollout
from comat.diffusion.schedulers import flow_level
from comat.entities.tokens import tokens_of
from comat.errors import UserError
from comat.models.families import BY_PIPELINE
from comat.models.fit import check_base, check_checkpointing
from comat.models.names import ModelName
from comat.models.record import check_models
from comat.randomness import generator, noise
from comat.tokenizers import as_read
from tests import tiny_families
from tests.test_replay import TERMS, build, full_gradient, gradient, relative

PROMPTS = ["A red ball and a blue cube", "two green stars"]
GUIDED = {"flux_schnell": (1.0,), "flux_dev": (1.0, 3.5)}


@pytest.fixture(scope="session")
def families(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a random twin of each family."""
    root = tmp_path_factory.mktemp("families")
    for name in tiny_families.NAMES:
        getattr(tiny_families, f"save_{name}")(root / name)
    return root


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
        PROMPTS,
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
    loss = full_graph_loss(step, batch)
    expected = full_gradient(loss, lora)
    values = step(batch)
    assert expected.norm() > 0 and values["attribute"] != 0
    assert relative(gradient(lora), expected) < 1e-5
    assert values["loss"] == pytest.approx(loss.item(), rel=1e-5)
    assert gradient(step.discriminator.trainable_parameters()).norm() > 0


@pytest.mark.parametrize("name", tiny_families.NAMES)
def test_maps_are_the_softmax_over_what_a_pixel_attends_to(families: Path, name: str) -> None:
    """Shapes at 32 px: 16 x 16 latents, and patches of 2 x 2 or 1; a pixel's attention to the text is at most 1."""
    backbone = load_base(str(families / name))
    prompts = backbone.encode_prompts(PROMPTS)
    z = torch.randn(2, *backbone.latent_shape(32), generator=generator(0, "z"))
    layers = backbone.attention_layers()
    with torch.no_grad(), recorded_maps(backbone.denoiser, layers) as recording:
        backbone.guided(z, torch.tensor(500.0), prompts, GUIDED.get(name, (4.0,))[-1])
    maps = recording.collect(backbone.layout(z.shape[-2:]), len(z))
    assert list(maps) == layers and set(backbone.map_layers()) < set(layers)
    joint = not name.startswith(("pixart", "sana"))
    side = z.shape[-1] // backbone.patch
    columns = prompts.tokens.shape[1]
    if name == "z_image":  # which reads no further than the longest prompt, filled up to 32
        columns = 32 * math.ceil(int(prompts.mask.sum(1).max()) / 32)
    for values in maps.values():
        assert values.shape == (2, 2, side, side, columns)
        total = values.sum(-1)
        assert (total.max() < 1) if joint else torch.allclose(total, torch.ones(()))
    if prompts.mask is not None:  # padding is not read
        assert float((values * (prompts.mask == 0)[:, None, None, None, :columns]).max()) == 0 or name == "z_image"


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


WORDS = st.lists(
    st.sampled_from(["Red", "ball", "a", "wooden", "GREEN", "stars", "zebra's", "42", "x-ray"]), max_size=2
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=40)
@given(before=WORDS, entity=st.sampled_from(["Blue cube", "wooden table", "quokka", "pink ring"]), after=WORDS)
@pytest.mark.parametrize("name", ["sd3", "pixart_sigma", "flux_dev", "sana", "qwen_image", "z_image"])
def test_columns_hold_the_words_of_an_entity(families: Path, name: str, before, entity, after) -> None:
    """What the columns of an entity decode to is the entity, whatever the tokenizer and where its tokens stand."""
    backbone = _loaded(families / name)
    prompt = " ".join([*before, entity, *after])
    tokens = [tokens_of(tokenizer, [prompt])[0] for tokenizer in backbone.tokenizers]
    assume(not any(one.are_cut for one in tokens))  # the words are spelled, and 24 tokens are read
    start = len(" ".join([*before, ""]))
    span = (start, start + len(entity))
    positions = [one.of([span]) for one in tokens]
    words = backbone.words(prompt)
    read = [text.tokenizer for text in backbone.texts if text.place in ("first", "behind")]
    said = "".join(words[column] for column in backbone.columns(positions)).replace(" ", "").lower()
    assert said == entity.replace(" ", "").lower() * len(read)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=20)
@given(
    words=st.lists(st.sampled_from(["Red", "ball", "a", "quokka's", "42", "x-ray", "(two)"]), min_size=1, max_size=5)
)
@pytest.mark.parametrize(
    ("name", "before", "after"),
    [
        ("qwen_image", ASKED, "<|im_end|>\n<|im_start|>assistant\n"),
        ("z_image", "<|im_start|>user\n", "<|im_end|>\n<|im_start|>assistant\n"),
    ],
)
def test_a_template_is_read_as_if_it_were_written_around_the_prompt(
    families: Path, name: str, before: str, after: str, words: list[str]
) -> None:
    """Ids as of the whole text by the tokenizer as it came; what is not the prompt's own is known."""
    backbone, prompt = _loaded(families / name), " ".join(words)
    came = Qwen2Tokenizer.from_pretrained(families / name / "tokenizer")
    whole = came(before + prompt + after).input_ids
    asked = ASKED if name == "qwen_image" else ""
    ids, mask, kept = backbone._instructed(0, [prompt], asked, place=0)
    assert ids[0, : len(whole)].tolist() == whole and int(mask.sum()) == len(whole)
    assert len(kept) == 512 and kept[0] == len(came(asked).input_ids) == (34 if asked else 0)
    own = [whole[kept[column]] for column in backbone.spoken(prompt)]
    assert own == came(prompt).input_ids


@pytest.mark.parametrize("prompt", ["A red ball and a blue cube", " Two green stars", "42 zebras", "(a ring)"])
def test_sana_reads_of_its_instruction_what_the_stock_pipeline_does(families: Path, prompt: str) -> None:
    """The start, and the last 299 tokens: the prompt begins in the middle of the word that ends the instruction."""
    backbone = _loaded(families / "sana")
    pipeline = SanaPipeline.from_pretrained(families / "sana", dtype=torch.float32)
    found = backbone.encode_prompts([prompt])
    embeddings, mask, null, null_mask = pipeline.encode_prompt([prompt], complex_human_instruction=sana.ASKED)
    assert (
        torch.equal(found.mask, mask) and relative(found.tokens * mask[..., None], embeddings * mask[..., None]) < 1e-6
    )
    assert torch.equal(backbone.null.mask, null_mask) and relative(backbone.null.tokens, null) < 1e-6
    word = backbone.words(prompt)[backbone.spoken(prompt)[0]]
    assert prompt.strip().lower().startswith(word)


_CACHE: dict[Path, object] = {}


def _loaded(folder: Path):
    if folder not in _CACHE:
        _CACHE[folder] = load_base(str(folder))
    return _CACHE[folder]


def test_a_timestep_means_the_same_corruption_on_both(families: Path) -> None:
    """Stable Diffusion's timestep 500 keeps 0.278 of the variance; a flow model has that ratio at s = 0.617."""
    a = 0.2776
    assert float(flow_level(torch.tensor(500))) == pytest.approx(1 / (1 + (a / (1 - a)) ** 0.5), abs=2e-3)
    diffusion = load_base(str(families / "pixart_sigma"))
    flow = load_base(str(families / "sd3"))
    flow.scheduler_config["shift"] = 1.0
    sampler = flow.sampler("model", 1000, (8, 8))
    clean, drawn = torch.ones(1, 16, 4, 4), torch.zeros(1, 16, 4, 4)
    for tau in (1, 200, 600, 999):
        start = sampler.start(tau)
        signal = float(sampler.noisy(clean, drawn, [start]).mean())
        spoilt = float(sampler.noisy(drawn, clean, [start]).mean())
        level = float(flow_level(torch.tensor(tau)))
        assert signal + spoilt == pytest.approx(1)
        assert spoilt == pytest.approx(level, abs=2e-3)
    assert diffusion.sampler("ddpm", 1000, (8, 8)).start(600) == 399  # timesteps 999, 998, ...


def test_a_flow_model_is_drawn_by_its_own_sampler_alone(families: Path) -> None:
    with pytest.raises(UserError, match="trained by flow matching: set it to model"):
        load_base(str(families / "sd3")).sampler("ddpm", 4, (8, 8))


def test_a_model_without_guidance_refuses_some(families: Path) -> None:
    with pytest.raises(UserError, match="takes no guidance: set it to 1"):
        ours(families / "flux_schnell", 3.5, 32, 2, tuned=False)


@pytest.mark.parametrize("name", ["sana", "qwen_image", "z_image"])
def test_the_autoencoder_is_asked_as_the_stock_pipeline_does(families: Path, name: str) -> None:
    """The picture of the same latents; and latents of a picture are in the units that it decodes."""
    backbone, px = _loaded(families / name), 32
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
    else:
        expected = 1.5 * (vae.encode(pixels).latent_dist.mean - 0.06)
    assert torch.allclose(latents, expected, atol=1e-5)


def test_an_autoencoder_that_cannot_be_checkpointed_is_said(families: Path) -> None:
    _loaded(families / "sana").checkpoint_decoder()
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


def test_an_image_is_filled_up_before_the_text() -> None:
    """36 patches are 64 tokens of Z-Image, and the text is what is behind them."""
    from comat.diffusion.attention import joint_layout

    rows, columns, size = joint_layout((12, 12), 2, text_first=False, multiple=32)(96, 96)
    assert (rows, columns, size) == (slice(0, 36), slice(64, None), (6, 6))


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


def test_a_tokenizer_of_sentencepiece_alone_reads_as_sentencepiece_does(tmp_path: Path) -> None:
    """PixArt's T5 has no tokenizer.json; ids by the library that wrote its file, in lower case as its pipeline does."""
    lines = ["a red ball and a blue cube", "two green stars above a table", "the dog's pink ring, on a wooden box"]
    (tmp_path / "lines.txt").write_text("\n".join(lines * 20))
    ids = {"pad_id": 0, "eos_id": 1, "unk_id": 2, "bos_id": -1}
    SentencePieceTrainer.train(
        input=str(tmp_path / "lines.txt"), model_prefix=str(tmp_path / "spiece"), vocab_size=30, minloglevel=9, **ids
    )
    (text,) = [text for text in BY_PIPELINE["PixArtSigmaPipeline"].texts]
    (tmp_path / "tokenizer_config.json").write_text('{"tokenizer_class": "T5Tokenizer"}')
    tokenizer = as_read(T5Tokenizer.from_pretrained(tmp_path), text)
    own = SentencePieceProcessor(model_file=str(tmp_path / "spiece.model"))
    for prompt in (*lines, "Two Red stars  on the Table"):
        assert tokenizer(prompt).input_ids == [*own.encode(prompt.lower().strip()), 1]
    assert tokenizer.model_max_length == 300
