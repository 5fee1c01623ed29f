"""The shapes world's vision-language model: what it is taught is what captioner vlm asks it, by its own processor."""

from __future__ import annotations

import random
from collections import Counter
from pathlib import Path

import pytest
import torch
from torch.testing import assert_close
from transformers import LlavaForConditionalGeneration

from comat.captioners.load import load_captioner
from comat.params import DESCRIBE, SHOWS
from comat.shapes.recipe import vlm
from comat.shapes.recipe.__main__ import save
from comat.shapes.recipe.data import clean_examples
from comat.shapes.world.captions import describe, parse_prompt
from comat.shapes.world.scenes import Group, Spec
from tests.tiny_models import one_captioner

PROMPTS = ["a red ball", "two green stars", "a small blue cross on the left of an orange ring"]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Trained for two steps on a few scenes, in hub layout."""
    root, own = tmp_path_factory.mktemp("vlm"), vlm.tokenizer()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(vlm, "clean_examples", lambda count, seed, weights: clean_examples(96, seed, weights))
        model = vlm.train(2, own, root / "work", "fp32")
        vlm.go_on(model, 2, own, root / "on", "fp32")
    save(model, root / "vlm", tokenizer=vlm.processor(own))
    return root / "vlm"


@pytest.mark.parametrize(("question", "answer"), [(DESCRIBE, "{prompt}"), (SHOWS, "Yes")])
def test_it_is_taught_what_it_is_asked(trained: Path, question: str, answer: str) -> None:
    """The loss of the recipe, which puts the image's features where its token stands, is the captioner's."""
    asked = one_captioner("vlm", trained, captioner_question=question, captioner_answer=answer)
    captioner = load_captioner(asked, torch.device("cpu"), torch.float32)
    texts = [vlm.dialogue(question.format(prompt=p), answer.format(prompt=p)) for p in PROMPTS]
    assert [captioner.dialogue.answered(p).text for p in PROMPTS] == [
        text if answer == "{prompt}" else text.removesuffix("</s>") for text in texts
    ]
    seen = torch.rand(3, 3, 64, 64)
    log_p, counts = captioner.log_likelihood(seen, PROMPTS)
    ids = captioner.dialogue.tokenizer(texts, padding=True, padding_side="right", return_tensors="pt").input_ids
    assert (ids[:, vlm.IMAGE_AT] == captioner.model.config.image_token_index).all()
    with torch.no_grad():
        _, told = vlm.features(captioner.model, 2 * seen - 1)
        states = vlm.read(captioner.model, told, ids)
        nll = vlm.answer_nll(captioner.model, states, ids, captioner.dialogue.tokenizer)
    for row in range(3):
        kept = nll[row][nll[row] != 0][: int(counts[row].sum())]
        assert_close(-kept, log_p[row][counts[row]], rtol=1e-3, atol=1e-3)


def test_every_word_of_the_world_and_of_the_questions_is_known() -> None:
    own = vlm.tokenizer()
    examples = clean_examples(300, seed=0)
    rng, texts = random.Random(1), vlm.dialogues(examples, random.Random(0))
    assert sum("ASSISTANT: Yes<" in text for text in texts) == sum("ASSISTANT: No<" in text for text in texts) == 100
    texts += [one.text for example in examples for one in vlm.asked_of(example, rng)]
    assert own.unk_token_id not in {token for text in texts for token in own(text).input_ids}


def test_a_wrong_caption_says_what_is_not_there() -> None:
    """Other things, or the same with one elsewhere; and every way of being wrong occurs."""
    rng, seen = random.Random(0), Counter()
    for example in clean_examples(600, seed=1):
        other = vlm.wrong(example.spec, rng)
        things = Counter(example.spec.groups) != Counter(other.groups)
        assert things or (example.spec.relation and example.spec.groups == other.groups[::-1] != other.groups)
        assert describe(other) != example.caption and other.total <= 3
        seen["other things" if things else "other places"] += 1
        seen["other number"] += other.total != example.spec.total
    assert min(seen.values()) > 30


def test_two_things_exchange_their_colours_by_hand() -> None:
    spec = Spec((Group("ball", "red"), Group("cube", "blue")))
    said = {describe(vlm.wrong(spec, random.Random(seed))) for seed in range(60)}
    assert "a blue ball and a red cube" in said and "two red balls and a blue cube" in said


def test_dialogues_in_a_row_are_read_as_if_each_stood_alone(trained: Path) -> None:
    """Behind one image: the same log-likelihoods, and none of a question."""
    own = vlm.tokenizer()
    model = LlavaForConditionalGeneration.from_pretrained(trained, dtype=torch.float32)
    lesson = vlm.Lesson(model, own)
    asked = [vlm.asked_of(example, random.Random(n)) for n, example in enumerate(clean_examples(2, seed=3))]
    texts = [[one.text for one in row] for row in asked]
    ids, turns, so = lesson.encode_together(asked)
    with torch.no_grad():
        _, told = vlm.features(model, torch.rand(2, 3, 64, 64))
        together = vlm.answer_nll(model, vlm.read(model, told, ids, turns), ids, own)
        for row in range(2):
            each, image = lesson.encode(texts[row]), told[row : row + 1].expand(len(texts[row]), -1, -1)
            alone = vlm.answer_nll(model, vlm.read(model, image, each), each, own)
            for number, one in enumerate(alone, 1):
                found = together[row][turns[row, 1:] == number]
                assert_close(found[found != 0], one[one != 0], rtol=1e-4, atol=1e-5)
            assert (
                int((together[row] != 0).sum())
                == int((alone != 0).sum())
                == len(own(texts[row][0]).input_ids) - 12 + 16
            )
            words = own.convert_ids_to_tokens(ids[row][so[row].isfinite()].tolist())
            assert [word.removesuffix("s").removesuffix("e") for word in words] == [
                group.noun.removesuffix("s").removesuffix("e")
                for one in asked[row][1:]
                for group in parse_prompt(one.text.split('"')[1]).groups
            ]
            assert so[row][so[row].isfinite()].tolist() == [value for one in asked[row] for value in one.so]


def test_what_is_asked_of_a_scene_is_so_or_not() -> None:
    """A thing that is not there shares its noun or its colour with one that is, and no thing of the scene is it."""
    rng = random.Random(0)
    for example in clean_examples(300, seed=4, weights=(1, 2, 4, 2, 2)):
        true, false = (describe(said) for said in vlm.told_of(example, rng))
        assert true != false
        things = {describe(Spec((group,))) for group in example.spec.groups}
        assert true == example.caption or true in things
        assert false not in {example.caption, *things} or true == example.caption


def test_what_is_so_at_its_last_noun_is_what_the_answer_says() -> None:
    rng = random.Random(5)
    for example in clean_examples(300, seed=6, weights=(1, 2, 4, 2, 2)):
        for one in vlm.asked_of(example, rng)[1:]:
            assert one.so[-1] == ("ASSISTANT: Yes<" in one.text)
            assert list(one.so) == sorted(one.so, reverse=True)  # what has been wrong stays so


@pytest.mark.parametrize(
    ("said", "so"),
    [
        ("a red ball above two blue cubes", (True, True)),
        ("two blue cubes above a red ball", (True, False)),
        ("a blue ball above two red cubes", (False, False)),
        ("a red ball above a blue cube", (True, False)),
        ("a red ball", (True,)),
        ("a blue cube", (False,)),
        ("two blue cubes", (True,)),
        ("a blue ball", (False,)),
    ],
)
def test_what_is_so_by_hand(said: str, so: tuple[bool, ...]) -> None:
    assert vlm.so_far(parse_prompt(said), parse_prompt("a red ball above two blue cubes")) == so
