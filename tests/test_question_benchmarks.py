"""TIFA and DPG-Bench: their files, their arithmetic by hand, and both on small random models."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from comat.errors import UserError
from comat.evaluation.dpg import Dpg, dpg_score, fulfilled
from comat.evaluation.tifa import Tifa, tifa_score
from comat.judges.benchmark import Drawn
from comat.judges.later import Later, ready
from comat.judges.vqa import BlipVqa
from comat.samples.formats import dpg, tifa
from tests.tiny_judges import save_blip_vqa

QUESTION = {
    "id": "own_1",
    "caption": "two red balls",
    "question": "what color are the balls?",
    "choices": ["red", "blue", "green"],
    "answer": "red",
    "element_type": "color",
    "element": "red",
}
COUNT = QUESTION | {"question": "how many balls?", "choices": ["1", "2"], "answer": "2", "element_type": "counting"}
OTHER = QUESTION | {"id": "own_2", "caption": "a blue cube", "choices": ["red", "blue"], "answer": "blue"}

COLUMNS = "item_id,text,keywords,proposition_id,dependency,category_broad,category_detailed,tuple"
HEADER = f"{COLUMNS},question_natural_language\n"
LINES = [
    'p1,"a cat in a red hat, asleep",,1,0,entity,whole,entity - whole (cat),Is there a cat?',
    'p1,"a cat in a red hat, asleep",,3,"1, 2",attribute,color,attribute - color (hat),Is the hat red?',
    'p1,"a cat in a red hat, asleep",,2,1,entity,part,entity - part (hat),Does it wear a hat?',
    'p1,"a cat in a red hat, asleep",,4,0,attribute,state,attribute - state (cat),Is it asleep?',
    "p2,a dog,,1,0,entity,whole,entity - whole (dog),Is there a dog?",
]


@pytest.fixture
def tifa_file(tmp_path: Path) -> Path:
    path = tmp_path / "tifa.json"
    path.write_text(json.dumps([QUESTION, COUNT, OTHER]))
    return path


@pytest.fixture
def dpg_file(tmp_path: Path) -> Path:
    path = tmp_path / "dpg.csv"
    path.write_text(HEADER + "\n".join(LINES) + "\n")
    return path


def test_the_questions_and_prompts_of_tifa(tifa_file: Path) -> None:
    found = tifa.read(tifa_file).by_prompt
    assert [len(own) for own in found.values()] == [2, 1]
    assert found["two red balls"][1].answer == "2"
    assert tifa.prompts(tifa_file) == [("two red balls", "tifa"), ("a blue cube", "tifa")]


def test_tifa_by_hand(tifa_file: Path) -> None:
    """Likeliest choices: red of red, blue and green (right); 1 of 1 and 2 (wrong). 1 of 2; colour 1, counting 0."""
    own = tifa.read(tifa_file).by_prompt["two red balls"]
    found = tifa_score(own, [[-1.0, -2.0, -3.0], [-0.5, -0.7]])
    said = [(answer.category, answer.answer, answer.right) for answer in found.answers]
    assert (found.value, said) == (0.5, [("color", "red", True), ("counting", "1", False)])


def test_the_questions_and_prompts_of_dpg(dpg_file: Path) -> None:
    """Parents come before their children, whatever the order of the file."""
    found = dpg.read(dpg_file).by_prompt["a cat in a red hat, asleep"]
    asked = [(question.question, question.parents) for question in found]
    assert asked[:2] == [("Is there a cat?", ()), ("Does it wear a hat?", (0,))]
    assert asked[2:] == [("Is the hat red?", (0, 1)), ("Is it asleep?", ())]
    assert dpg.prompts("dpg", dpg_file) == [("a cat in a red hat, asleep", "dpg"), ("a dog", "dpg")]


@pytest.mark.parametrize(
    ("yes", "score"),
    [
        ({1, 2, 3, 4}, 1.0),
        ({1, 3, 4}, 0.5),  # no hat, so none that is red: the cat, and that it sleeps
        ({2, 3, 4}, 0.25),  # no cat, so no hat and nothing of it; that it sleeps depends on nothing here
        ({1, 2}, 0.5),
        (set(), 0.0),
    ],
)
def test_dpg_by_hand(dpg_file: Path, yes: set[int], score: float) -> None:
    """Four questions; 2 depends on 1, 3 on 1 and 2. Categories take the answers as they are."""
    own = dpg.read(dpg_file).by_prompt["a cat in a red hat, asleep"]
    found = dpg_score(own, [number in yes for number in (1, 2, 3, 4)])
    assert found.value == score
    assert [(a.category, a.answer) for a in found.answers] == [
        (category, "yes" if number in yes else "no")
        for number, category in enumerate(("entity", "entity", "attribute", "attribute"), 1)
    ]


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ("[", r"tifa\.json: expected JSON"),
        ("{}", r"tifa\.json: expected a list of questions, got '\{\}'"),
        ("[]", "expected a list of questions"),
        (["red"], r"entry 1: row is 'red': Input should be a valid dictionary"),
        (
            [QUESTION, {k: v for k, v in COUNT.items() if k != "answer"}],
            r"entry 2: answer is missing; expected id,",
        ),
        ([QUESTION | {"choices": ["red"]}], "none of 1 questions can be asked: .*fewer than two choices': 1"),
        ([QUESTION | {"choices": "red or blue"}], "entry 1: choices is 'red or blue': Input should be a valid list"),
        ([QUESTION | {"id": True}], "entry 1: id is .*valid string"),
        ([QUESTION, COUNT | {"caption": "a ball"}], "entry 2: caption is 'a ball': expected 'two red balls', as id"),
    ],
)
def test_what_is_wrong_with_a_file_of_tifa(tmp_path: Path, entries: object, message: str) -> None:
    path = tmp_path / "tifa.json"
    path.write_text(entries if isinstance(entries, str) else json.dumps(entries))
    with pytest.raises(UserError, match=message):
        tifa.read(path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (HEADER, r"dpg\.csv: expected a line for each question, found none"),
        (
            "a,b\n1,2\n",
            r"dpg\.csv, line 2: item_id is missing; expected item_id, text, proposition_id",
        ),
        (HEADER + LINES[4].replace(",1,0,", ",one,0,"), "line 2: proposition_id is 'one': expected a whole number"),
        (HEADER + LINES[4].replace(",1,0,", ",0,0,"), "line 2: proposition_id is .*greater than or equal to 1"),
        (HEADER + LINES[4] + "\n" + LINES[4], "line 3: item 'p2' has a proposition 1 before"),
        (HEADER + LINES[4] + "\n" + LINES[2].replace("p1", "p2"), "line 3: item 'p2' has another text before"),
        (HEADER + LINES[4] + ",more", "line 2: 10 cells, but 9 columns"),
    ],
)
def test_what_is_wrong_with_a_file_of_dpg(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "dpg.csv"
    path.write_text(text)
    with pytest.raises(UserError, match=message):
        dpg.read(path)


QUIRKS = [
    "k1,a teal kettle left of a drum,,1,0,entity,whole,,Is there a kettle?",
    'k1,a teal kettle left of a drum,,2,"1,2",attribute,color,,Is the kettle teal?',
    'k1,a teal kettle left of a drum,,3,"5, left",relation,spatial,,Is the kettle left of the drum?',
    "k1,a teal kettle left of a drum,,4,5,entity,whole,,Is there a drum?",
    "k1,a teal kettle left of a drum,,5,4,attribute,state,,Is the drum struck?",
    "k2,two flutes,,1,0,entity,whole,,Are there flutes?",
    "k2,two flutes,,2,9,other,count,,Are there two flutes?",
    "k3,two flutes,,1,0,entity,whole,,Are there flutes?",
]


def test_rows_that_no_rule_foresees_are_read_for_what_they_say(tmp_path: Path) -> None:
    """A parent that is the row itself; a word, and one that is not there, counted; a circle; one text of two items."""
    (tmp_path / "dpg.csv").write_text(HEADER + "\n".join(QUIRKS) + "\n")
    found = dpg.read(tmp_path / "dpg.csv")
    kettle, flutes = found.by_prompt.values()
    assert [(question.question, question.parents) for question in kettle] == [
        ("Is there a kettle?", ()),
        ("Is the kettle teal?", (0,)),
        ("Is there a drum?", (3,)),
        ("Is the drum struck?", (2,)),
        ("Is the kettle left of the drum?", (3,)),
    ]
    assert [question.parents for question in flutes] == [(), (), ()]
    assert [question.question for question in flutes].count("Are there flutes?") == 2
    assert found.left_out == {"parents that are no number": 1, "parents that are not there": 1}


@pytest.mark.parametrize(("drum", "struck", "counted"), [(1, 1, (1, 1)), (1, 0, (0, 0)), (0, 1, (0, 0))])
def test_a_circle_counts_as_in_the_published_code(tmp_path: Path, drum: int, struck: int, counted: tuple) -> None:
    """Row by row: the drum counts if it was said to be struck as well, and is struck if it counts."""
    (tmp_path / "dpg.csv").write_text(HEADER + "\n".join(QUIRKS) + "\n")
    own = dpg.read(tmp_path / "dpg.csv").by_prompt["a teal kettle left of a drum"]
    assert tuple(fulfilled(own, [True, True, bool(drum), bool(struck), True])[2:4]) == counted


@given(st.data())
def test_questions_in_whatever_circles_are_asked_each_once(data: st.DataObject) -> None:
    """A parent stands behind its child only where the child is its parent, too, directly or not."""
    numbers = list(range(1, data.draw(st.integers(1, 7)) + 1))
    parents = {n: data.draw(st.lists(st.sampled_from(numbers), unique=True, max_size=3)) for n in numbers}
    parents = {n: [parent for parent in own if parent != n] for n, own in parents.items()}
    order = dpg.in_order(parents)
    assert sorted(order) == numbers
    for child, own in parents.items():
        for parent in own:
            assert order.index(parent) < order.index(child) or child in dpg._above(parent, parents)


def test_questions_of_tifa_that_cannot_be_asked_are_counted(tmp_path: Path) -> None:
    """One choice, an empty one, an answer that is none of them; an integer id is an id."""
    odd = [{"choices": ["red"]}, {"choices": ["red", " ", "blue"]}, {"answer": "pink"}]
    entries = [QUESTION, *(QUESTION | one for one in odd), QUESTION | {"id": 7}]
    (tmp_path / "tifa.json").write_text(json.dumps(entries))
    found = tifa.read(tmp_path / "tifa.json")
    assert [question.id for question in found.by_prompt["two red balls"]] == ["own_1", "7"]
    assert sorted(found.left_out.values()) == [1, 1, 1]


@pytest.mark.parametrize("read", [tifa.read, dpg.read])
def test_a_missing_file_is_named(tmp_path: Path, read) -> None:
    with pytest.raises(UserError, match=r"gone: no such file; docs/benchmarks\.md says"):
        read(tmp_path / "gone")


def drawn(folder: Path, source: str, texts: list[str]) -> list[Drawn]:
    rng = np.random.default_rng(0)
    for seed in range(len(texts)):
        Image.fromarray(rng.integers(0, 256, (16, 16, 3), dtype=np.uint8)).save(folder / f"{seed}.png")
    return [Drawn("base", f"p{i}", text, source, source, i, f"{i}.png") for i, text in enumerate(texts)]


def test_both_on_a_random_model(tmp_path: Path, tifa_file: Path, dpg_file: Path) -> None:
    """Scores are the shares of what the model itself answers, image by image, whatever the batch."""
    vqa = BlipVqa(str(save_blip_vqa(tmp_path / "vqa")), None, torch.device("cpu"))
    texts = ["two red balls", "a blue cube", "two red balls"]
    images = drawn(tmp_path, "tifa", texts)
    benchmark = Tifa(tifa_file, ready(vqa), batch_size=2)
    assert all(benchmark.covers(image) for image in images)
    values = [score.value for score in benchmark.scores(images, tmp_path)]
    for image, value in zip(images, values, strict=True):
        own = benchmark.questions[image.text]
        pixels = np.asarray(Image.open(tmp_path / image.path))
        choices = [vqa.log_likelihoods([pixels], [[(q.question, q.choices)]])[0][0] for q in own]
        right = [q.choices[int(np.argmax(c))] == q.answer for q, c in zip(own, choices, strict=True)]
        assert value == np.mean(right)
    images = drawn(tmp_path, "dpg", ["a dog", "a cat in a red hat, asleep"])
    benchmark = Dpg(dpg_file, ready(vqa), batch_size=2)
    assert all(benchmark.covers(image) for image in images)
    dog = np.asarray(Image.open(tmp_path / "0.png"))
    values = [score.value for score in benchmark.scores(images, tmp_path)]
    assert values[0] == float(vqa.yes([dog], [["Is there a dog?"]])[0][0] > 0.5)
    assert values[1] in (0, 0.25, 0.5, 0.75, 1)


def test_only_their_own_prompts_are_covered(tmp_path: Path, tifa_file: Path) -> None:
    benchmark = Tifa(tifa_file, Later(str(tmp_path / "vqa"), lambda: pytest.fail("loaded for nothing")), 2)
    assert benchmark.evaluators == {"vqa": str(tmp_path / "vqa")}
    assert not benchmark.covers(Drawn("base", "p", "two red balls", "t2i", "color", 0, "x.png"))
    assert not benchmark.covers(Drawn("base", "p", "three red balls", "tifa", "tifa", 0, "x.png"))
