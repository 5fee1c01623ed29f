"""GenEval 2: its file, Soft-TIFA by hand, and the first word of a small random vision-language model."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch.testing import assert_close
from transformers import AutoModelForImageTextToText, AutoProcessor

from comat.captioners.load import check_dialogue
from comat.errors import UserError
from comat.evaluation.geneval2 import GenEval2, geneval2_score
from comat.evaluation.summary import means
from comat.judges.benchmark import Drawn
from comat.judges.first_word import FirstWord, spellings
from comat.params import GENEVAL2_MODEL, GenEval2Params
from comat.randomness import generator
from comat.samples.formats.geneval2 import Asked, prompts, read
from comat.storage.images import to_bytes
from tests import tiny_vlms

CPU = torch.device("cpu")
BICYCLES = {
    "prompt": "two white bicycles",
    "atom_count": 3,
    "vqa_list": [
        ["How many bicycles are in the image?", "two"],
        ["Are the bicycles white?", "Yes"],
        ["Are there any bicycles in the image?", "Yes"],
    ],
    "skills": ["count", "attribute", "object"],
}


def write(folder: Path, *lines: object) -> Path:
    path = folder / "geneval2.jsonl"
    path.write_text("\n".join(json.dumps(line) for line in lines) + "\n")
    return path


def test_a_file_s_prompts_come_by_how_much_they_ask_for(tmp_path: Path) -> None:
    path = write(tmp_path, BICYCLES, BICYCLES, BICYCLES | {"prompt": "more", "atom_count": 10, "method": "x"})
    assert prompts(path) == [("two white bicycles", "atoms 03"), ("more", "atoms 10")]
    assert read(path)["more"].vqa_list[0] == ["How many bicycles are in the image?", "two"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"skills": ["count"]}, "line 2: row is .*: 3 questions and 1 skills: expected one for each"),
        ({"vqa_list": [["Are there?"]] * 3}, r"line 2: vqa_list\.0 is .*Are there\?.*at least 2 items"),
        ({"atom_count": "3"}, "line 2: atom_count is '3': Input should be a valid integer"),
        ({"atom_count": 4}, "line 2: prompt 'two white bicycles' has other questions before"),
        ({"prompt": ""}, "line 2: prompt is"),
    ],
)
def test_what_is_wrong_in_a_file_is_named(tmp_path: Path, changes: dict, message: str) -> None:
    with pytest.raises(UserError, match=message):
        read(write(tmp_path, BICYCLES, BICYCLES | changes))


def test_soft_tifa_by_hand() -> None:
    """1/2, 1/4 and 1/8: the cube root of 1/64 is 1/4, and their mean 7/24."""
    score = geneval2_score(Asked.model_validate(BICYCLES), [0.5, 0.25, 0.125])
    assert score.value == pytest.approx(0.25)
    assert score.details == {"arithmetic_mean": pytest.approx(7 / 24)}
    assert [answer.right for answer in score.answers] == [0.5, 0.25, 0.125]
    assert score.answers[0].answer == "two (0.50)"
    nothing = geneval2_score(Asked.model_validate(BICYCLES), [0.5, 0.0, 0.5])
    assert nothing.value == 0.0 and nothing.details["arithmetic_mean"] == pytest.approx(1 / 3)


def test_skills_are_means_of_probabilities_and_atoms_of_scores() -> None:
    """Two prompts: the count's mean is that of 0.5 and 0.1, not how often it was right."""
    rows = []
    for n, found in enumerate(([0.5, 1.0, 1.0], [0.1, 1.0, 1.0])):
        score = geneval2_score(Asked.model_validate(BICYCLES), found)
        answers = [{"category": a.category, "right": a.right} for a in score.answers]
        details = json.dumps({**score.details, "questions": answers})
        row = {"benchmark": "geneval2", "model": "m", "prompt_id": str(n), "seed": 0, "category": "atoms 03"}
        rows.append({**row, "value": score.value, "details": details})
    result = means(rows, 10, 0)
    assert result["count"]["value"] == pytest.approx(0.3) and result["object"]["value"] == 1.0
    assert result["atoms 03"]["value"] == pytest.approx((0.5 ** (1 / 3) + 0.1 ** (1 / 3)) / 2)
    assert result["total"]["arithmetic_mean"] == pytest.approx((2.5 + 2.1) / 6)


def test_the_spellings_of_an_answer() -> None:
    assert spellings("Yes") == ["yes", "Yes", " yes", " Yes"]
    assert spellings("two") == ["two", "Two", "2", " two", " Two", " 2"]
    assert spellings("eleven") == ["eleven", "Eleven", " eleven", " Eleven"]


@pytest.mark.parametrize("family", ["qwen3_vl", "idefics3"])
def test_the_first_word_is_the_model_s_own_next_token(tmp_path: Path, family: str) -> None:
    """Each question alone through the processor's own template, in a batch of unequal ones by ours.

    The small models read characters: an answer "two" begins with t, T, 2 or a blank.
    """
    folder = getattr(tiny_vlms, f"save_{family}")(tmp_path / family)
    seen = torch.rand(3, 3, 64, 64, generator=generator(0, "images"))
    questions, words = ["How many?", "Are there any bicycles in the image?", "Is it?"], ["two", "Yes", "Yes"]
    judge = FirstWord(
        GenEval2Params(vqa_model=str(folder), vqa_revision=None).dialogue, CPU, torch.float32, GENEVAL2_MODEL
    )
    found = judge.probabilities(seen, questions, words)
    model = AutoModelForImageTextToText.from_pretrained(folder).eval()
    processor = AutoProcessor.from_pretrained(folder)
    first = [["t", "T", "2", " "], ["y", "Y", " "], ["y", "Y", " "]]
    for row, (question, tokens) in enumerate(zip(questions, first, strict=True)):
        asked = [{"type": "image"}, {"type": "text", "text": f"{question} Answer in one word."}]
        text = processor.apply_chat_template([{"role": "user", "content": asked}], add_generation_prompt=True)
        given = processor(text=[text], images=[[seen[row]]], images_kwargs={"do_rescale": False}, return_tensors="pt")
        with torch.no_grad():
            likely = model(**given).logits[0, -1].softmax(-1)
        ids = processor.tokenizer.convert_tokens_to_ids(tokens)
        assert_close(found[row], likely[ids].sum(), rtol=1e-4, atol=1e-6)
    assert len(set(found.tolist())) == 3 and found.min() > 0


def test_a_model_is_asked_as_its_template_asks_it(tiny: Path) -> None:
    """LLaVA's opens an answer by "ASSISTANT:"; the blank that it writes before a given answer would be a token more."""
    dialogue = check_dialogue(GenEval2Params(vqa_model=str(tiny / "llava"), vqa_revision=None).dialogue, "vqa_model")
    asked = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "Is it? Answer in one word."}]}]
    opened = dialogue.processor.apply_chat_template(asked, add_generation_prompt=True)
    assert dialogue.asked("Is it?") == opened
    assert opened.endswith("ASSISTANT:") and dialogue.answered("Is it?").text == f"{opened} Yes"


@pytest.mark.parametrize("see", [check_dialogue, lambda own, key: FirstWord(own, CPU, torch.float32, key)])
def test_a_model_whose_numerals_begin_alike_is_refused(tiny: Path, see) -> None:
    """Llama's tokenizer, as LLaVA 1.5 has it, writes "2" and "3" with a blank's token first: any number was right."""
    own = GenEval2Params(vqa_model=str(tiny / "llava"), vqa_revision=None).dialogue
    with pytest.raises(
        UserError, match=r"evaluate\.geneval2\.vqa_model '.*llava': its tokenizer begins several numerals"
    ):
        see(own, GENEVAL2_MODEL)
    check_dialogue(own, "evaluate.vqa_score.vqa_model")  # which reads no numerals


def test_images_are_judged_whatever_the_batch(tmp_path: Path) -> None:
    """Questions of several images share batches; a prompt of another source is not covered."""
    folder = tiny_vlms.save_qwen3_vl(tmp_path / "vlm")
    other = BICYCLES | {"prompt": "a cat", "vqa_list": [["Is it a cat?", "Yes"]], "skills": ["object"]}
    path = write(tmp_path, BICYCLES, other)
    images = []
    for n, text in enumerate(["a cat", "two white bicycles"]):
        pixels = torch.rand(3, 64, 64, generator=generator(n, "images"))
        Image.fromarray(to_bytes(pixels)).save(tmp_path / f"{n}.png")
        images.append(Drawn("base", str(n), text, "geneval2", "atoms 03", 0, f"{n}.png"))
    own = GenEval2Params(vqa_model=str(folder), vqa_revision=None)
    judges = [GenEval2(path, own, size, CPU, torch.float32) for size in (1, 8)]
    (one, two) = ([score.value for score in judge.scores(images, tmp_path)] for judge in judges)
    assert one == pytest.approx(two, rel=1e-4) and len(one) == 2
    assert judges[0].covers(images[0])
    assert not judges[0].covers(Drawn("base", "0", "a cat", "tifa", "tifa", 0, "0.png"))
