"""Training-free methods: Attend-and-Excite equals diffusers' pipeline, the others their equations."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from diffusers import DDIMScheduler, StableDiffusionAttendAndExcitePipeline

from comat.diffusion.attention import recorded_maps
from comat.diffusion.backbones import Backbone, load_base
from comat.diffusion.sampling import sample_latents
from comat.errors import UserError
from comat.params import SamplingParams
from comat.randomness import generator, noise
from comat.samples.methods import METHODS, method_class
from comat.samples.methods.attend_and_excite import excitation
from comat.samples.methods.base import Phrase, Told, sample_by
from comat.samples.methods.composable import ComposableDiffusion
from comat.samples.methods.structured import StructuredDiffusion, _mean_sequence
from tests.tiny_families import save_flux_dev, save_pixart_sigma, save_sd3

PARAMS = SamplingParams(
    seed=0, resolution=32, native_resolution=32, scheduler="ddim", sampling_steps=10, guidance_scale=5.0
)
TOLD = [
    Told("a red ball and a blue cube", (Phrase("a red ball", (3,)), Phrase("a blue cube", (7,)))),
    Told("two green stars", (Phrase("two green stars", (3,)),)),
]
KEYS = [("a", 0), ("b", 0)]


@pytest.fixture(scope="module")
def sd15(tiny: Path) -> Backbone:
    return load_base(str(tiny / "sd15"))


def test_attend_and_excite_is_that_of_diffusers(tiny: Path, sd15: Backbone) -> None:
    """Ten steps: altered before the fifth, refined at steps 0, 2 and 4; within 1e-4, and not what plain sampling draws.

    Its pipeline takes maps of a size that is given, the project those of a quarter of the latents."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pipe = StableDiffusionAttendAndExcitePipeline.from_pretrained(tiny / "sd15", safety_checker=None)
    own = {**sd15.scheduler_config, "clip_sample": False, "set_alpha_to_one": False}
    pipe.scheduler = DDIMScheduler.from_config(own)
    pipe.set_progress_bar_config(disable=True)
    shape = sd15.latent_shape(PARAMS.resolution)
    z = noise(shape, [generator(0, "sample", *key) for key in KEYS])
    theirs = pipe(
        [one.text for one in TOLD],
        token_indices=[[3, 7], [3]],
        height=32,
        width=32,
        num_inference_steps=10,
        guidance_scale=5.0,
        latents=z,
        max_iter_to_alter=5,
        thresholds={0: 0.05, 2: 0.5, 4: 0.8},
        attn_res=(shape[1] // 2, shape[1] // 2),  # the coarsest of this small UNet
        output_type="latent",
    ).images
    ours = sample_by(method_class("attend_and_excite")(), sd15, PARAMS, TOLD, KEYS, "sample")
    torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=1e-4)
    plain = sample_latents(sd15, PARAMS, [one.text for one in TOLD], KEYS, "sample", 32)
    assert (ours - plain).abs().max() > 1e-3


def test_excitation_by_hand() -> None:
    """Four columns, of which the outer two do not count; one pixel of 3 x 3 gives all to the second: after the softmax
    1 there and 1/2 elsewhere, smoothed by a kernel whose middle is 1 / (1 + 2/e)^2."""
    maps = torch.zeros(3, 3, 4)
    maps[1, 1, 1] = 1.0
    middle = (1 + 2 * torch.tensor(-1.0).exp()) ** -2
    found = excitation(maps, [1], 1)
    torch.testing.assert_close(found, (0.5 + 0.5 * middle)[None], atol=1e-4, rtol=0)


def test_composable_is_the_sum_of_its_concepts(sd15: Backbone) -> None:
    """Eq. 11 on one step, concept by concept; a prompt without entities is guided as ever."""
    told = [TOLD[0], Told("something else")]
    sampler = sd15.sampler("ddim", 10, (8, 8))
    x, t = torch.randn(2, 4, 8, 8, generator=generator(1, "x")), sampler.timesteps[3]
    found = ComposableDiffusion().begin(sd15, sampler, told, 5.0).guided(x, t)

    def said(row: int, prompt: str) -> torch.Tensor:
        return sd15.denoise(x[row : row + 1], t, sd15.encode_prompts([prompt]))

    nothing = [said(row, "") for row in (0, 1)]
    first = nothing[0] + 5 * (said(0, "a red ball") - nothing[0]) + 5 * (said(0, "a blue cube") - nothing[0])
    torch.testing.assert_close(found[:1], first, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(
        found[1:], nothing[1] + 5 * (said(1, "something else") - nothing[1]), atol=1e-4, rtol=1e-4
    )


def test_structured_sequences_hold_each_phrase_by_itself(sd15: Backbone) -> None:
    """Columns 1-3 and 5-7: the mean of twice the whole prompt's and once the phrase's own; the rest: the prompt's."""
    whole = sd15.encode_prompts([TOLD[0].text]).tokens[0]
    ball, cube = (sd15.encode_prompts([text]).tokens[0] for text in ("a red ball", "a blue cube"))
    expected = whole.clone()
    expected[1:4] = (2 * whole[1:4] + ball[1:4]) / 3
    expected[5:8] = (2 * whole[5:8] + cube[1:4]) / 3
    torch.testing.assert_close(_mean_sequence(sd15, TOLD[0], whole), expected, atol=1e-6, rtol=1e-6)


def test_structured_keeps_the_maps_and_changes_the_values(sd15: Backbone) -> None:
    """The first cross-attention has seen nothing of the text before: its map is that of the prompt."""
    sampler = sd15.sampler("ddim", 10, (8, 8))
    x, t = torch.randn(1, 4, 8, 8, generator=generator(1, "x")), sampler.timesteps[3]
    layer = sd15.attention_layers()[:1]
    drawing = StructuredDiffusion().begin(sd15, sampler, TOLD[:1], 5.0)
    prompts = sd15.encode_prompts([TOLD[0].text])
    maps = []
    for guided in (lambda: drawing.guided(x, t), lambda: sd15.guided(x, t, prompts, 5.0)):
        with recorded_maps(sd15.denoiser, layer) as recording:
            guided()
        maps.append(recording.collect(sd15.layout((8, 8)), 1)[layer[0]])
    torch.testing.assert_close(maps[0], maps[1])
    assert (drawing.guided(x, t) - sd15.guided(x, t, prompts, 5.0)).abs().max() > 1e-5
    no_phrases = StructuredDiffusion().begin(sd15, sampler, [Told(TOLD[0].text)], 5.0)
    torch.testing.assert_close(no_phrases.guided(x, t), sd15.guided(x, t, prompts, 5.0))


class Nothing:
    """A method that changes nothing."""

    def begin(self, backbone: Backbone, _sampler: object, told: Sequence[Told], guidance_scale: float):
        from comat.samples.methods.base import Plain

        return Plain(backbone, backbone.encode_prompts([one.text for one in told]), guidance_scale)


@pytest.mark.parametrize("scheduler", ["ddpm", "euler"])
def test_no_method_is_plain_sampling(sd15: Backbone, scheduler: str) -> None:
    params = PARAMS.model_copy(update={"scheduler": scheduler})
    found = sample_by(Nothing(), sd15, params, TOLD, KEYS, "sample")
    expected = sample_latents(sd15, params, [one.text for one in TOLD], KEYS, "sample", 32)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("save", [save_sd3, save_pixart_sigma, save_flux_dev], ids=["sd3", "pixart", "flux"])
def test_methods_on_transformers_draw_or_say_why_not(tmp_path: Path, name: str, save) -> None:
    backbone = load_base(str(save(tmp_path / "model")))
    distilled = backbone.family.distilled
    params = PARAMS.model_copy(update={"scheduler": "model", "guidance_scale": 3.0, "sampling_steps": 5})
    columns = backbone.spoken(TOLD[1].text)
    told = [Told(TOLD[1].text, (Phrase(TOLD[1].text, (columns[-1],)),))]
    if name == "structured" or (name == "composable" and distilled):
        with pytest.raises(UserError, match=f"^{name}: "):
            sample_by(method_class(name)(), backbone, params, told, KEYS[:1], "sample")
        return
    found = sample_by(method_class(name)(), backbone, params, told, KEYS[:1], "sample")
    plain = sample_latents(backbone, params, [told[0].text], KEYS[:1], "sample", params.resolution)
    assert found.isfinite().all()
    if name == "attend_and_excite":
        assert not torch.equal(found, plain)
    else:  # one concept, which is the whole prompt
        torch.testing.assert_close(found, plain, atol=1e-4, rtol=1e-4)
