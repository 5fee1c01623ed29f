"""Vision-language models as captioners: only the answer counts, and batches equal their members."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close
from transformers import AutoProcessor, Qwen3VLVisionModel

from comat.captioners.load import load_captioner
from comat.captioners.vlm import Vlm
from comat.errors import UserError
from comat.judges.benchmark import Drawn
from comat.judges.vqa_score import VqaScore
from comat.params import SHOWS, VqaScoreParams
from comat.randomness import generator
from comat.storage.images import write_png
from tests import tiny_vlms
from tests.tiny_models import one_captioner

PROMPTS = ["a red ball", "two green stars and a blue cube", "a Pink ring"]
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def vlms(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("vlms")
    for family in tiny_vlms.FAMILIES:
        getattr(tiny_vlms, f"save_{family}")(root / family)
    return root


def load(folder: Path, **more: object) -> Vlm:
    vlm = load_captioner(one_captioner("vlm", folder, **more), CPU, torch.float32)
    assert isinstance(vlm, Vlm)
    return vlm


def images(count: int, side: int = 64) -> Tensor:
    return torch.rand(count, 3, side, side, generator=generator(0, "images"))


def scored(vlm: Vlm, seen: Tensor, prompts: list[str]) -> tuple[list[Tensor], Tensor]:
    """log p of the tokens that count, of each prompt, and the gradient of their sum in the images."""
    seen = seen.clone().requires_grad_()
    log_p, counts = vlm.log_likelihood(seen, prompts)
    (gradient,) = torch.autograd.grad(log_p.sum(), seen)
    return [row[counted].detach() for row, counted in zip(log_p, counts, strict=True)], gradient


@pytest.mark.parametrize("family", tiny_vlms.FAMILIES)
def test_a_batch_of_unequal_answers_is_its_members(vlms: Path, family: str) -> None:
    """Idefics cuts every image into four tiles and the whole."""
    vlm, seen = load(vlms / family), images(3)
    together, gradient = scored(vlm, seen, PROMPTS)
    for row in range(3):
        (alone,), own = scored(vlm, seen[row : row + 1], PROMPTS[row : row + 1])
        assert_close(together[row], alone, rtol=0, atol=1e-5)
        assert_close(gradient[row : row + 1], own, rtol=1e-4, atol=1e-6)
        assert own.abs().max() > 0
    assert not any(weight.requires_grad for weight in vlm.model.parameters())


@pytest.mark.parametrize("family", tiny_vlms.FAMILIES)
def test_the_padding_side_changes_nothing(vlms: Path, family: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither the tokenizer's own, nor rows that are padded on the left because a processor insists."""
    vlm, seen = load(vlms / family), images(2)
    expected, _ = scored(vlm, seen, PROMPTS[:2])
    vlm.dialogue.tokenizer.padding_side = "left"
    for found, own in zip(scored(vlm, seen, PROMPTS[:2])[0], expected, strict=True):
        assert_close(found, own, rtol=0, atol=1e-5)
    given = type(vlm.dialogue.processor).__call__

    def insists(self, *, padding_side: str, **kwargs):
        return given(self, padding_side="left", **kwargs)

    monkeypatch.setattr(type(vlm.dialogue.processor), "__call__", insists)
    for found, own in zip(scored(vlm, seen, PROMPTS[:2])[0], expected, strict=True):
        assert_close(found, own, rtol=0, atol=1e-5)


@pytest.mark.parametrize("family", tiny_vlms.FAMILIES)
def test_only_the_answer_and_its_end_count(vlms: Path, family: str) -> None:
    """transformers' own loss, where the last characters, each a token, and the end are the labels."""
    vlm, seen = load(vlms / family, prefix="a photo of"), images(1)
    (found,), _ = scored(vlm, seen, PROMPTS[:1])
    assert len(found) == len("a red ball") + 1
    assert vlm.pieces(PROMPTS[0]) == [*"a red ball", "<|im_end|>"]
    text = vlm.dialogue.answered(PROMPTS[0]).text
    assert text.endswith("assistant\na photo of a red ball<|im_end|>") and "Describe the image in one sentence." in text
    processor = AutoProcessor.from_pretrained(vlms / family)
    inputs = processor(text=[text], images=[[seen[0]]], images_kwargs={"do_rescale": False}, return_tensors="pt")
    labels = inputs.input_ids.clone()
    labels[:, : -len(found)] = -100
    with torch.no_grad():
        loss = vlm.model(**inputs, labels=labels).loss
    assert_close(-found.mean(), loss, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("family", tiny_vlms.FAMILIES)
def test_vqa_score_counts_the_answer_alone(vlms: Path, family: str) -> None:
    """The prompt stands in the question; "Yes" has three characters, and no end."""
    vlm = load(vlms / family, captioner_question=SHOWS, captioner_answer="Yes")
    assert vlm.dialogue.answered("a ball").text.endswith("assistant\nYes")
    assert 'Does this figure show "a ball"?' in vlm.dialogue.answered("a ball").text
    (one, two), gradient = scored(vlm, images(2), PROMPTS[:2])
    assert len(one) == len(two) == 3
    assert gradient.abs().amax((1, 2, 3)).min() > 0


def test_an_image_token_in_a_prompt_calls_for_no_image(vlms: Path) -> None:
    vlm = load(vlms / "idefics3")
    log_p, counts = vlm.log_likelihood(images(1), ["a <image>ball"])
    assert log_p.isfinite().all() and int(counts.sum()) == len("a ball") + 1


@pytest.mark.parametrize("family", tiny_vlms.FAMILIES)
def test_a_saturated_pixel_keeps_its_gradient(vlms: Path, family: str) -> None:
    """Decoders go beyond black and white; what is cut off there would not be learned."""
    _, gradient = scored(load(vlms / family), 1.08 + 0.02 * images(1), PROMPTS[:1])
    assert (gradient != 0).float().mean() > 0.99


@pytest.mark.parametrize("prompt", ["end", "i", ">", "im_end", "assistant", "Describe"])
def test_an_answer_is_found_where_the_template_puts_it(vlms: Path, prompt: str) -> None:
    """Not in the token that ends it, <|im_end|>, nor in the question."""
    vlm = load(vlms / "qwen3_vl")
    assert vlm.dialogue.answered(prompt).text.endswith(f"assistant\n{prompt}<|im_end|>")
    assert vlm.pieces(prompt) == [*prompt, "<|im_end|>"]


def test_a_teacher_passes_a_gradient_to_the_image(vlms: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where none comes back nothing would be learned; a judge needs none."""
    own = one_captioner("vlm", vlms / "qwen3_vl")
    load_captioner(own, CPU, torch.float32, teaches=True)
    given = Qwen3VLVisionModel.forward
    monkeypatch.setattr(Qwen3VLVisionModel, "forward", torch.no_grad()(given))
    load_captioner(own, CPU, torch.float32)
    with pytest.raises(UserError, match=r"captioner\.1\.captioner_model '.*': no gradient comes back to the image"):
        load_captioner(own, CPU, torch.float32, key="captioner.1.captioner_model", teaches=True)


def broken(vlms: Path, folder: Path, **files: object) -> Path:
    """A copy of a model with other text in some of its files, or without them."""
    shutil.copytree(vlms / "idefics3", folder)
    for name, text in files.items():
        path = next(folder.glob(f"{name}.*"))
        path.write_text(str(text)) if text else path.unlink()
    return folder


def test_a_model_without_a_template_is_refused(vlms: Path, tmp_path: Path) -> None:
    folder = broken(vlms, tmp_path / "m", chat_template=None)
    for name in ("processor_config.json", "tokenizer_config.json"):
        values = json.loads((folder / name).read_text())
        values.pop("chat_template", None)
        (folder / name).write_text(json.dumps(values))
    with pytest.raises(UserError, match="it has no chat template: expected a model tuned to answer"):
        load(folder)


def test_a_template_that_changes_the_answer_is_refused(vlms: Path, tmp_path: Path) -> None:
    folder = broken(vlms, tmp_path / "m", chat_template="<image>{{ messages[0]['content'][1]['text'] }}")
    with pytest.raises(UserError, match="its chat template does not give the answer as it is"):
        load(folder)


def test_a_template_that_leaves_out_the_question_is_refused(vlms: Path, tmp_path: Path) -> None:
    """Or a score of "Yes" would not depend on the prompt."""
    folder = broken(vlms, tmp_path / "m", chat_template="<image>Well: {{ messages[1]['content'][0]['text'] }}")
    with pytest.raises(UserError, match="its chat template leaves out the question"):
        load(folder, captioner_question=SHOWS, captioner_answer="Yes")


def test_a_template_that_writes_the_date_writes_the_same_one_every_day(vlms: Path, tmp_path: Path) -> None:
    """By hand: 26 July 2024 was a Friday. Or a run that goes on after midnight would be another."""
    template = (vlms / "idefics3/chat_template.jinja").read_text()
    dated = "\n{{ strftime_now('%Y-%m-%d') }} {{ strftime_now('%A, %d %B %y') }};" + template
    plain = load(vlms / "idefics3").dialogue.answered("a red ball").text
    folder = broken(vlms, tmp_path / "m", chat_template=dated)
    assert load(folder).dialogue.answered("a red ball").text == f"\n2024-07-26 Friday, 26 July 24;{plain}"


def test_a_model_that_does_not_say_what_ends_an_answer_is_refused(vlms: Path, tmp_path: Path) -> None:
    plain = "<image>{{ messages[0]['content'][1]['text'] }} {{ messages[1]['content'][0]['text'] }}"
    folder = broken(vlms, tmp_path / "m", chat_template=plain)
    config = json.loads((folder / "tokenizer_config.json").read_text())
    (folder / "tokenizer_config.json").write_text(json.dumps(config | {"eos_token": None}))
    with pytest.raises(UserError, match="says what ends an answer"):
        load(folder)
    load(folder, captioner_question=SHOWS, captioner_answer="Yes")


def test_a_model_of_text_alone_or_of_images_alone_is_refused(tiny: Path) -> None:
    with pytest.raises(UserError, match="it has no chat template: expected a model tuned to answer"):
        load(tiny / "clip")
    with pytest.raises(UserError, match="its processor is a ViTImageProcessor without tokenizer: expected"):
        load(tiny / "dino")


def test_a_captioner_without_a_dialogue_is_refused(tiny: Path) -> None:
    with pytest.raises(UserError, match="it has no chat template") as caught:
        load(tiny / "blip")
    assert "\n" not in str(caught.value)


def test_an_image_processor_of_another_kind_is_refused(tiny: Path, tmp_path: Path) -> None:
    shutil.copytree(tiny / "llava", tmp_path / "llava")
    path = tmp_path / "llava/processor_config.json"
    values = json.loads(path.read_text())
    values["image_processor"]["image_processor_type"] = "Emu3ImageProcessor"
    path.write_text(json.dumps(values))
    with pytest.raises(UserError, match="cannot load an image by its processor: ValueError"):
        load(tmp_path / "llava")


def test_the_judge_is_the_probability_of_yes(vlms: Path, tmp_path: Path) -> None:
    """By hand: the sum of the three characters' log-likelihoods, as a probability."""
    seen = (images(1) * 255).round()
    write_png(tmp_path / "0.png", seen[0] / 255)
    judge = VqaScore(VqaScoreParams(vqa_model=str(vlms / "qwen3_vl"), vqa_revision=None), 2, CPU, torch.float32)
    drawn = [Drawn("base", "p", "a red ball", "s", "c", 0, "0.png")]
    (score,) = judge.scores(drawn, tmp_path)
    vlm = load(vlms / "qwen3_vl", captioner_question=SHOWS, captioner_answer="Yes")
    (expected,), _ = scored(vlm, seen / 255, ["a red ball"])
    assert 0 < score.value < 1 and score.value == pytest.approx(float(expected.sum().exp()), rel=1e-4)
    assert judge.evaluators == {"vqa": str(vlms / "qwen3_vl")}


def test_a_judge_is_called_by_its_own_parameter(tiny: Path, tmp_path: Path) -> None:
    judge = VqaScore(VqaScoreParams(vqa_model=str(tiny / "blip"), vqa_revision=None), 2, CPU, torch.float32)
    write_png(tmp_path / "0.png", images(1)[0])
    drawn = [Drawn("base", "p", "a red ball", "s", "c", 0, "0.png")]
    with pytest.raises(UserError, match=r"evaluate\.vqa_score\.vqa_model '.*': it has no chat template"):
        list(judge.scores(drawn, tmp_path))
