"""Captioners: the likelihood is the model's own, of the prompt's tokens alone; the pixels are the processor's."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.testing import assert_close
from transformers import BlipImageProcessorPil, CLIPImageProcessorPil
from transformers.models.clip.modeling_clip import CLIPEncoderLayer

from comat.captioners.load import _reaches, load_captioner, load_teacher
from comat.captioners.scoring import Texts, token_log_likelihood
from comat.captioners.vlm import Vlm
from comat.errors import UserError
from comat.models.preprocess import Preprocess
from comat.params import Params
from comat.randomness import generator
from tests.tiny_models import one_captioner, save_blip

KINDS = ["blip", "git", "llava"]
PROMPTS = ["a red ball", "two green stars and a blue cube"]


def load(tiny: Path, kind: str, prefix: str = "", dtype: torch.dtype = torch.float32, folder: str | None = None):
    return load_captioner(one_captioner(kind, tiny / (folder or kind), prefix), torch.device("cpu"), dtype)


def images(count: int, side: int = 16) -> Tensor:
    return torch.rand(count, 3, side, side, generator=generator(0, "images"))


def test_clip_reads_a_shorter_prompt_of_a_batch_as_alone(tiny: Path) -> None:
    """Whatever side its tokenizer pads by itself."""
    clip, seen = load(tiny, "clip_similarity", folder="clip"), images(2)
    clip.tokenizer.padding_side = "left"
    together, _ = clip.log_likelihood(seen, PROMPTS)
    alone = [clip.log_likelihood(seen[row : row + 1], PROMPTS[row : row + 1])[0] for row in range(2)]
    assert_close(together, torch.cat(alone), rtol=0, atol=1e-5)


def test_a_gradient_that_fp16_holds_where_training_scales_it_reaches_the_image() -> None:
    """2^-28 is zero in fp16, whose least number is 2^-24; times 1,024 it is 2^-18, and with 2^-12 more zero again."""
    image = torch.ones(1, requires_grad=True)
    assert _reaches(image, image.half() * 2**-14 * 2**-14)
    assert not _reaches(image, image.half() * 2**-14 * 2**-14 * 2**-12)


def test_a_teacher_too_faint_for_fp16_is_told_so(tmp_path: Path) -> None:
    """Its gradient is some 1e-12 of a pixel; in float32 it teaches."""
    own = one_captioner("blip", save_blip(tmp_path / "blip", initializer_range=1e-10))
    load_captioner(own, torch.device("cpu"), torch.float32, teaches=True)
    with pytest.raises(UserError, match=r"no gradient comes back .* or set precision to bf16 or fp32"):
        load_captioner(own, torch.device("cpu"), torch.float16, teaches=True)


def tokenizer_of(captioner):
    return captioner.dialogue.tokenizer if isinstance(captioner, Vlm) else captioner.tokenizer


def own_loss(captioner, kind: str, image: Tensor, prompt: str) -> Tensor:
    """The loss that transformers computes on labels where only the prompt and its end are not -100."""
    tokenizer, model = tokenizer_of(captioner), captioner.model
    if kind == "llava":
        pixels = Preprocess(captioner.dialogue.name, None, 16)(image, torch.float32)
        opening = f"USER: {'<image>' * 16}\nDescribe the image in one sentence. ASSISTANT: "
        question = tokenizer(opening).input_ids
        ids = tokenizer(f"{opening}{prompt}</s>", return_tensors="pt").input_ids
        labels = ids.clone()
        labels[:, : len(question)] = -100
    else:
        pixels = captioner.preprocess(image, torch.float32)
        ids = tokenizer(prompt, return_tensors="pt").input_ids
        labels = ids.clone()
        labels[:, 0] = -100
    if kind == "blip":
        model.text_decoder.label_smoothing = 0.0
        ids[:, 0] = model.config.text_config.bos_token_id
    out = model(input_ids=ids, attention_mask=torch.ones_like(ids), pixel_values=pixels, labels=labels)
    return out.loss


def test_log_likelihood_by_hand() -> None:
    """Two classes. After token 0 the logits (0, ln 3) give class 1 the probability 3/4, after token 1 (0, 0) one half.

    The third token is padding.
    """
    logits = torch.tensor([[[0.0, math.log(3)], [0.0, 0.0], [9.0, 0.0]]])
    counts = torch.tensor([[False, True, False]])
    texts = Texts(torch.tensor([[0, 1, 0]]), torch.tensor([[1, 1, 0]]), counts)
    scores, counted = token_log_likelihood(logits, texts)
    assert_close(scores, torch.tensor([[math.log(3 / 4), 0.0]]))
    assert counted.tolist() == [[True, False]]
    texts = Texts(texts.ids, texts.mask, torch.tensor([[False, True, True]]))
    assert_close(token_log_likelihood(logits[:, 1:], texts)[0], torch.tensor([[math.log(1 / 2)]]))


@pytest.mark.parametrize("kind", KINDS)
def test_the_mean_is_the_loss_of_the_model(tiny: Path, kind: str) -> None:
    """And its gradient in the pixels that loss's, where they are beyond black and white as well."""
    captioner, seen = load(tiny, kind), (1.4 * images(2) - 0.2).requires_grad_()
    scores, counts = captioner.log_likelihood(seen, PROMPTS)
    mean = -scores.sum(1) / counts.sum(1)
    expected = torch.stack([own_loss(captioner, kind, seen[i : i + 1], PROMPTS[i]) for i in range(2)])
    assert_close(mean, expected, rtol=1e-4, atol=1e-5)
    (found,), (wanted,) = (torch.autograd.grad(loss.sum(), seen) for loss in (mean, expected))
    assert_close(found, wanted, rtol=1e-3, atol=1e-6)
    assert (wanted != 0).all()


@pytest.mark.parametrize("kind", KINDS)
def test_a_batch_scores_like_its_members(tiny: Path, kind: str) -> None:
    captioner, seen = load(tiny, kind), images(2)
    together = captioner.log_likelihood(seen, PROMPTS)[0].sum(1)
    alone = [captioner.log_likelihood(seen[i : i + 1], PROMPTS[i : i + 1])[0].sum() for i in range(2)]
    assert_close(together, torch.stack(alone), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_the_padding_side_of_a_tokenizer_changes_nothing(tiny: Path, kind: str) -> None:
    captioner, seen = load(tiny, kind), images(2)
    before = captioner.log_likelihood(seen, PROMPTS)
    tokenizer_of(captioner).padding_side = "left"
    assert all(torch.equal(a, b) for a, b in zip(before, captioner.log_likelihood(seen, PROMPTS), strict=True))


@pytest.mark.parametrize(("kind", "short", "long"), [("blip", 4, 8), ("git", 4, 8), ("llava", 11, 32)])
def test_prefix_start_and_padding_do_not_count(tiny: Path, kind: str, short: int, long: int) -> None:
    """3 and 7 words and an end; to the tiny Llama every character is a token: 10 and 31, and an end."""
    for prefix in ("", "a black ring"):
        _, counts = load(tiny, kind, prefix).log_likelihood(images(2), PROMPTS)
        assert counts.sum(1).tolist() == [short, long]


@pytest.mark.parametrize("kind", KINDS)
def test_the_prefix_is_read(tiny: Path, kind: str) -> None:
    without, within = (load(tiny, kind, prefix).log_likelihood(images(2), PROMPTS)[0] for prefix in ("", "a ring"))
    assert not torch.allclose(without.sum(1), within.sum(1), atol=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_gradient_flows_to_every_image_and_no_weight(tiny: Path, kind: str) -> None:
    captioner, seen = load(tiny, kind), images(2, 24).requires_grad_()
    scores, _ = captioner.log_likelihood(seen, PROMPTS)
    scores[0].sum().backward()
    assert seen.grad[0].abs().max() > 0
    assert seen.grad[1].abs().max() == 0
    assert not any(weight.requires_grad for weight in captioner.model.parameters())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("kind", KINDS)
def test_half_precision_scores_in_float32(tiny: Path, kind: str, dtype: torch.dtype) -> None:
    exact, _ = load(tiny, kind).log_likelihood(images(2), PROMPTS)
    half, _ = load(tiny, kind, dtype=dtype).log_likelihood(images(2), PROMPTS)
    assert half.dtype == torch.float32
    assert_close(half, exact, rtol=0.02, atol=0.05)


def photo(side: int) -> np.ndarray:
    """Smooth waves with a hard edge and a little noise: (H, W, 3) uint8."""
    y, x = np.mgrid[:side, :side] / side
    waves = np.stack([np.sin(9 * x + 4 * y), np.cos(7 * x * y + 1), np.sin(12 * y)], -1) / 2 + 0.5
    waves[side // 3 : side // 2, side // 4 :] = (0.9, 0.1, 0.2)
    noise = torch.randn(side, side, 3, generator=generator(0, "photo")).numpy()
    return (waves * 235 + 10 + 4 * noise).clip(0, 255).astype(np.uint8)


def snow(side: int) -> np.ndarray:
    return torch.randint(0, 256, (side, side, 3), generator=generator(0, "snow"), dtype=torch.uint8).numpy()


PROCESSORS = {
    "blip": (BlipImageProcessorPil, {"size": {"height": 384, "width": 384}}, 384),
    "git": (CLIPImageProcessorPil, {"size": {"shortest_edge": 224}, "crop_size": 224}, 224),
    "llava": (CLIPImageProcessorPil, {"size": {"shortest_edge": 336}, "crop_size": 336}, 336),
}


@pytest.mark.parametrize("draw", [photo, snow])
@pytest.mark.parametrize("kind", KINDS)
def test_the_pixels_are_those_of_the_processor(tmp_path: Path, kind: str, draw) -> None:
    """At the sizes of the real models, on a 512 px image, within a 255th on average before normalisation."""
    build, options, size = PROCESSORS[kind]
    processor = build(**options)
    processor.save_pretrained(tmp_path)
    pixels = draw(512)
    theirs = processor(Image.fromarray(pixels), return_tensors="pt")["pixel_values"]
    image = torch.from_numpy(pixels).permute(2, 0, 1)[None].float() / 255
    image.requires_grad_()
    ours = Preprocess(str(tmp_path), None, size)(image, torch.float32)
    assert ours.shape == theirs.shape
    std = torch.tensor(processor.image_std).view(1, 3, 1, 1)
    assert ((ours - theirs) * std).abs().mean() <= 1 / 255
    ours.sum().backward()
    assert image.grad.abs().max() > 0


def test_a_blip_that_names_no_first_token_is_refused(tiny: Path, tmp_path: Path) -> None:
    shutil.copytree(tiny / "blip", tmp_path / "blip")
    config = json.loads((tmp_path / "blip/config.json").read_text())
    config["text_config"]["bos_token_id"] = None
    (tmp_path / "blip/config.json").write_text(json.dumps(config))
    with pytest.raises(UserError, match=r"expected the id of the token that opens a caption, but its text_config\.bos"):
        load_captioner(one_captioner("blip", tmp_path / "blip"), torch.device("cpu"), torch.float32)


class Kept:
    """Counts what autograd keeps for the backward pass."""

    numbers = 0

    def keep(self, tensor: Tensor) -> Tensor:
        self.numbers += tensor.numel()
        return tensor


@pytest.mark.parametrize("kind", [*KINDS, "clip_similarity"])
def test_a_checkpointed_captioner_says_the_same_and_keeps_less(tiny: Path, kind: str) -> None:
    """The gradient of the image is the same; of two layers in each tower, what they keep inside is not kept."""
    folder = tiny / ("clip" if kind == "clip_similarity" else kind)
    own, seen = one_captioner(kind, folder), images(2)
    found = []
    for checkpointed in (False, True):
        captioner = load_captioner(own, torch.device("cpu"), torch.float32, teaches=True, checkpointed=checkpointed)
        assert not any(isinstance(part, nn.Dropout) and part.training for part in captioner.model.modules())
        image, kept = seen.clone().requires_grad_(), Kept()
        with saved_tensors_hooks(kept.keep, lambda tensor: tensor):
            log_p, _ = captioner.log_likelihood(image, PROMPTS)
        (gradient,) = torch.autograd.grad(log_p.sum(), image)
        found.append((log_p.detach(), gradient, kept.numbers))
    (plain, own_gradient, most), (again, gradient, least) = found
    assert torch.equal(plain, again)
    assert_close(gradient, own_gradient, rtol=1e-6, atol=0)
    assert least < 0.75 * most


def test_a_teacher_is_tried_with_gradients_where_none_are_wanted(make_params: Callable[..., Params]) -> None:
    """As `evaluate` loads it, which judges without any (`evaluate.captioner: true`, what `comat init` sets)."""
    with torch.no_grad():
        load_teacher(make_params(), torch.device("cpu"), torch.float32)
        assert not torch.is_grad_enabled()


def test_a_captioner_whose_layers_drop_out_where_they_are_checkpointed_is_refused(
    tiny: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As some layers of transformers do by their own flag, not by a module."""
    given = CLIPEncoderLayer.forward

    def drops(self, hidden_states: Tensor, *args: object, **more: object) -> Tensor:
        return given(self, nn.functional.dropout(hidden_states, 0.5, self.training), *args, **more)

    monkeypatch.setattr(CLIPEncoderLayer, "forward", drops)
    own = one_captioner("clip_similarity", tiny / "clip")
    load_captioner(own, torch.device("cpu"), torch.float32, teaches=True)
    with pytest.raises(UserError, match=r"set train\.gradient_checkpointing to decoder"):
        load_captioner(own, torch.device("cpu"), torch.float32, teaches=True, checkpointed=True)
