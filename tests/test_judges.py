"""The models that judge images against the libraries' own use of them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.ops import box_convert
from transformers import (
    AutoProcessor,
    BlipForQuestionAnswering,
    BlipImageProcessor,
    CLIPImageProcessor,
    CLIPModel,
    GroundingDinoProcessor,
)

from comat.errors import UserError
from comat.judges.clip import Clip
from comat.judges.detector import Instance, NounDetector, instances_of
from comat.judges.vqa import BlipVqa
from comat.segmenters.grounding import Boxes, Thresholds
from comat.shapes.recipe.tokenizers import bert_tokenizer
from tests import tiny_judges as tiny
from tests.tiny_models import save_blip, save_clip
from tests.tiny_segmenters import save_grounding_dino_hf

CPU = torch.device("cpu")
QUESTIONS = ["Is the ball red?", "is there a cube?", "a big blue star and a ring?"]


def pictures(count: int, height: int = 20, width: int = 28) -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    return [rng.integers(0, 256, (height, width, 3), dtype=np.uint8) for _ in range(count)]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("judges")
    tiny.save_blip_vqa(root / "vqa")
    save_clip(root / "clip")
    save_grounding_dino_hf(root / "detector")
    return root


@pytest.fixture(scope="module")
def vqa(folders: Path) -> BlipVqa:
    return BlipVqa(str(folders / "vqa"), None, CPU)


def test_yes_is_the_librarys_first_token_among_yes_and_no(vqa: BlipVqa, folders: Path) -> None:
    """generate() gives the scores s of the first token of the answer: e^s(yes) / (e^s(yes) + e^s(no))."""
    (image,), model = pictures(1), BlipForQuestionAnswering.from_pretrained(folders / "vqa")
    pixels = BlipImageProcessor.from_pretrained(folders / "vqa")(Image.fromarray(image), return_tensors="pt")
    tokenizer = tiny.vqa_tokenizer()
    for question in QUESTIONS:
        text = tokenizer(question, return_tensors="pt").input_ids
        options = {"max_new_tokens": 1, "return_dict_in_generate": True, "output_scores": True}
        scores = model.generate(text, pixels.pixel_values, **options).scores[0][0].exp()
        yes, no = scores[tokenizer.convert_tokens_to_ids(["yes", "no"])].tolist()
        assert vqa.yes([image], [[question]])[0] == pytest.approx([yes / (yes + no)], abs=1e-4)


def test_answers_depend_on_image_and_question_but_not_on_the_batch(vqa: BlipVqa) -> None:
    images = pictures(3)
    together = vqa.yes(images, [QUESTIONS[:2], [], QUESTIONS[2:]])
    assert [len(own) for own in together] == [2, 0, 1]
    assert together[0][0] != pytest.approx(together[0][1], abs=1e-4)
    for image, questions, found in zip(images, (QUESTIONS[:2], [], QUESTIONS[2:]), together, strict=True):
        for question, p in zip(questions, found, strict=True):
            assert vqa.yes([image], [[question]]) == [[pytest.approx(p, abs=1e-5)]]
            assert vqa.yes([255 - image], [[question]])[0][0] != pytest.approx(p, abs=1e-5)
    assert vqa.yes(images, [[], [], []]) == [[], [], []]


def test_an_answers_log_likelihood_is_the_product_of_its_steps(vqa: BlipVqa) -> None:
    """log p(red, ball, end) = log p(red) + log p(ball | red) + log p(end | red, ball), each read off alone."""
    images, choices = pictures(2), ["red ball", "Blue", "yes"]
    found = vqa.log_likelihoods(images, [[(QUESTIONS[2], choices[:1])], [(QUESTIONS[0], choices)]])
    assert [[len(values) for values in own] for own in found] == [[1], [3]]
    ((_, states),) = vqa._read([images[1]], [[QUESTIONS[0]]])
    for choice, value in zip(choices, found[1][0], strict=True):
        total, prefix = 0.0, [vqa.model.decoder_start_token_id]
        for token in vqa.tokenizer(choice).input_ids[1:]:
            logits = vqa.model.text_decoder(torch.tensor([prefix]), encoder_hidden_states=states).logits
            total += logits[0, -1].log_softmax(-1)[token].item()
            prefix.append(token)
        assert value == pytest.approx(total, abs=1e-4)


def test_a_model_that_names_no_first_token_is_refused(tmp_path: Path) -> None:
    folder = tiny.save_blip_vqa(tmp_path / "vqa")
    config = json.loads((folder / "config.json").read_text())
    config["text_config"]["bos_token_id"] = None
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(UserError, match=r"vqa': expected the id of the token that opens an answer"):
        BlipVqa(str(folder), None, CPU)


def test_a_model_without_yes_and_no_is_named(tmp_path: Path) -> None:
    folder = tiny.save_blip_vqa(tmp_path / "captions", bert_tokenizer())
    with pytest.raises(UserError, match="captions': its tokenizer has no words yes and no"):
        BlipVqa(str(folder), None, CPU)


def test_a_captioner_answers_no_questions(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"BLIP-VQA lacks \d+ weights of a BlipForQuestionAnswering"):
        BlipVqa(str(save_blip(tmp_path / "blip")), None, CPU)


def test_clip_is_the_librarys(folders: Path) -> None:
    images, texts = pictures(2), ["a red ball", "two green stars " * 20]
    model = CLIPModel.from_pretrained(folders / "clip")
    processor = AutoProcessor.from_pretrained(folders / "clip")
    pixels = CLIPImageProcessor.from_pretrained(folders / "clip")([Image.fromarray(i) for i in images])["pixel_values"]
    text = processor.tokenizer(texts, padding=True, truncation=True, return_tensors="pt")
    with torch.no_grad():
        out = model(pixel_values=torch.stack([torch.as_tensor(p) for p in pixels]), **text)
    clip = Clip(str(folders / "clip"), None, CPU)
    torch.testing.assert_close(clip.images(images), out.image_embeds, rtol=0, atol=1e-4)
    torch.testing.assert_close(clip.texts(texts), out.text_embeds, rtol=0, atol=1e-4)


def test_instances_are_the_librarys_boxes(folders: Path) -> None:
    """A noun of one token scores what that token does. Of this size nothing is resized; there the two would round."""
    (image,), source = pictures(1, 64, 80), str(folders / "detector")
    detector = NounDetector(source, None, CPU, Thresholds(0.0, 0.0, 1.0))
    inputs = GroundingDinoProcessor.from_pretrained(source)(
        images=Image.fromarray(image), text="dog .", return_tensors="pt"
    )
    with torch.no_grad():
        out = detector.detector.model(**inputs)
    ((found,),) = detector.instances([image], [["dog"]])
    scores = [own.score for own in found]
    assert len(found) > 3
    assert scores == sorted(scores, reverse=True)
    corners = box_convert(out.pred_boxes[0], "cxcywh", "xyxy") * torch.tensor([80, 64, 80, 64])
    for own in found:
        apart = (corners - torch.tensor([own.left, own.top, own.right, own.bottom])).abs().amax(-1)
        assert apart.min() < 1e-3
        assert out.logits[0, apart.argmin(), 1].sigmoid().item() == pytest.approx(own.score, abs=1e-5)
    ((surest,),) = NounDetector(source, None, CPU, Thresholds(0.0, scores[2], 1.0)).instances([image], [["dog"]])
    assert surest == found[:2]


def test_boxes_of_one_noun_that_overlap_by_more_than_half_are_one_instance() -> None:
    """Three boxes of 10 x 10 px at 0, 2 and 4: the surest, at 4, overlaps that at 2 by 80/120, that at 0 by 60/140.

    Between nouns nothing is dropped here: the other noun's box is that at 0 as well.
    """
    corners = torch.tensor([[0.0, 0, 10, 10], [2, 0, 12, 10], [4, 0, 14, 10], [0, 0, 10, 10]])
    boxes = Boxes(corners, torch.tensor([0, 0, 0, 1]), torch.tensor([0.5, 0.4, 0.75, 0.25]))
    assert instances_of(boxes, 0) == [Instance(4, 0, 14, 10, 0.75), Instance(0, 0, 10, 10, 0.5)]
    assert instances_of(boxes, 1) == [Instance(0, 0, 10, 10, 0.25)]
    assert instances_of(boxes, 2) == []
