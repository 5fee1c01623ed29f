"""Readers of the corpora, and the corpus built from them."""

from __future__ import annotations

from pathlib import Path

import pytest

from comat.corpora.build import Contamination, build_corpus, folded, normalise, prompt_id
from comat.corpora.readers import Prompt, read_hrs, read_lines, read_t2i_compbench
from comat.errors import UserError
from comat.params import PromptsParams


def test_normalise_folds_whitespace_and_typographic_quotes() -> None:
    assert normalise("  a\u00a0dog\u2019s  \u201cball\u201d\n") == 'a dog\'s "ball"'


def test_case_and_punctuation_do_not_make_a_new_prompt() -> None:
    assert folded("A red ball, and a cube.") == folded("a red ball and a cube")


def test_prompt_id_is_sixteen_hexadecimal_digits() -> None:
    assert len(prompt_id("a red ball")) == 16
    assert int(prompt_id("a red ball"), 16) >= 0


def test_validation_lists_are_held_out_and_their_repetitions_left_alone(tmp_path: Path) -> None:
    for name in ("color_train", "color_val", "color_val_seen"):
        (tmp_path / f"{name}.txt").write_text(f"{name}\n", encoding="utf-8")
    found = list(read_t2i_compbench(tmp_path))
    assert found == [Prompt("color_train", "color", "train"), Prompt("color_val", "color", "test")]


def test_hrs_columns_lists_and_empty_cells(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("meta_prompt,synthetic_prompt\nmeta,real\nmeta only,\n,\n", encoding="utf-8")
    (tmp_path / "b.csv").write_text("original_prompts\n\"['one', 'two']\"\n", encoding="utf-8")
    assert [prompt.text for prompt in read_hrs(tmp_path)] == ["real", "meta only", "one", "two"]


def test_wrong_columns_are_named(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("caption\na dog\n", encoding="utf-8")
    with pytest.raises(UserError, match=r"a\.csv.*caption.*synthetic_prompt"):
        list(read_hrs(tmp_path))


@pytest.mark.parametrize(
    ("data", "message"),
    [(None, "no such corpus file"), (b" \n", "empty"), (b"a dog\n\xff\n", "line 2: byte 0xff is not UTF-8")],
)
def test_bad_files(tmp_path: Path, data: bytes | None, message: str) -> None:
    file = tmp_path / "list.txt"
    if data is not None:
        file.write_bytes(data)
    with pytest.raises(UserError, match=message):
        list(read_lines(file))


def test_contamination_exact_near_and_none() -> None:
    held_out = "a red ball on the left of a blue star under a green tree near a very old brown house by the sea"
    contamination = Contamination([held_out], 0.8)
    assert contamination.reason(held_out.upper() + ".") == "in the evaluation"
    assert contamination.reason(held_out + " today") == "near an evaluation prompt"
    assert contamination.reason("a yellow cone") is None


def corpus(tmp_path, decontaminate: bool, train: list[str], val: list[str]):
    (tmp_path / "color_train.txt").write_text("\n".join(train))
    (tmp_path / "color_val.txt").write_text("\n".join(val))
    source = {"name": "t2i", "format": "t2i_compbench", "path": str(tmp_path)}
    values = {"sources": [source], "abc6k_sample": 0, "decontaminate": decontaminate, "near_duplicate": 0.8}
    return build_corpus(PromptsParams.model_validate(values), seed=0)


def test_held_out_prompts_leave_the_training_split(tmp_path) -> None:
    """Three training prompts: one held out, one twice (its case differs)."""
    train, val = ["a red ball", "A Blue cube.", "a blue cube"], ["A red ball!"]
    rows, report = corpus(tmp_path, True, train, val)
    assert [(row["text"], row["split"]) for row in rows] == [("A red ball!", "test"), ("A Blue cube.", "train")]
    assert report["sources"]["t2i"] == {
        "read": 4,
        "kept": 2,
        "dropped": {"duplicate": 1, "in the evaluation": 1},
    }


def test_without_decontamination_a_prompt_may_stand_in_both_splits(tmp_path) -> None:
    rows, report = corpus(tmp_path, False, ["a red ball"], ["a red ball"])
    assert report["total"] == {"train": 1, "test": 1}
    assert len({row["id"] for row in rows}) == 2


def test_a_corpus_without_training_prompts_is_refused(tmp_path) -> None:
    with pytest.raises(ValueError, match="no training prompt is left"):
        corpus(tmp_path, True, ["a red ball"], ["a red ball"])
