"""The corpus built from its sources: one spelling, no duplicates, nothing of the evaluation, and a report."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from comat.corpora.build import Corpus, build_corpus
from comat.corpora.contamination import Contamination, Match
from comat.corpora.text import folded, normalise, prompt_id
from comat.errors import UserError
from comat.params import PromptsParams
from comat.shapes.recipe.tokenizers import MAX_TOKENS, clip_tokenizer
from comat.storage.folders import files_below


def test_normalise_folds_whitespace_and_typographic_quotes() -> None:
    assert normalise("  a\u00a0dog\u2019s  \u201cball\u201d\n") == 'a dog\'s "ball"'


def test_normalise_takes_out_what_cannot_be_seen() -> None:
    """Soft hyphen, zero-width space, byte-order mark and NUL; e and a combining accent are one letter."""
    assert normalise("\ufeffa red\u00adball\u200b in a cafe\u0301\x00here") == "a redball in a caf\u00e9 here"


@given(st.text())
def test_normalising_twice_changes_nothing_more(text: str) -> None:
    assert normalise(normalise(text)) == normalise(text)


def test_case_and_punctuation_do_not_make_a_new_prompt() -> None:
    assert folded("A red ball, and a cube.") == folded("a red ball and a cube")
    assert folded("STRASSE \u2014 \u00bfwhere\u2026?") == folded("stra\u00dfe where")
    assert folded("\u2026 !") == ""


@given(st.text(st.characters(max_codepoint=127)))
def test_ascii_is_folded_as_any_script_is(text: str) -> None:
    """Beside a letter that is not ASCII, which ends the short way."""
    assert folded(text) == " ".join(folded(f"{text} \u00e9").split()[:-1])
    assert normalise(text) == " ".join(normalise(f"{text} \u00e9").split()[:-1])


def test_prompt_id_is_sixteen_hexadecimal_digits() -> None:
    assert len(prompt_id("a red ball")) == 16
    assert int(prompt_id("a red ball"), 16) >= 0


HELD_OUT = "one two three four five six seven eight nine ten eleven twelve"


def test_contamination_exact_near_and_none() -> None:
    """Twelve words have ten 3-grams; a thirteenth makes an eleventh: 10 / 11 alike. Another first word: 9 / 11."""
    contamination = Contamination({"val": [HELD_OUT]}, 0.8)
    assert contamination.match(HELD_OUT.upper() + ".") == Match("exact", "val", HELD_OUT)
    assert contamination.match(HELD_OUT + " thirteen") == Match("near", "val", HELD_OUT)
    assert contamination.match("a yellow cone") is None


def test_the_similarity_itself_decides() -> None:
    for threshold, expected in ((0.9, "near"), (0.91, None)):  # 10 / 11 = 0.909
        match = Contamination({"val": [HELD_OUT]}, threshold).match(HELD_OUT + " thirteen")
        assert (match and match.kind) == expected


def test_a_threshold_of_one_leaves_equal_prompts_alone() -> None:
    contamination = Contamination({"val": [HELD_OUT]}, 1.0)
    assert contamination.match(HELD_OUT).kind == "exact"
    assert contamination.match(HELD_OUT + " thirteen") is None


WORDS = st.lists(st.sampled_from("abcd"), min_size=3, max_size=9).map(" ".join)


@given(st.lists(WORDS, min_size=1, max_size=8), WORDS)
def test_no_near_duplicate_escapes_a_comparison_with_every_one(held_out: list[str], text: str) -> None:
    def grams(prompt: str) -> set[tuple[str, ...]]:
        words = prompt.split()
        return set(zip(words, words[1:], words[2:], strict=False))

    ours = grams(text)
    near = any(len(ours & grams(other)) / len(ours | grams(other)) >= 0.6 for other in held_out)
    assert (Contamination({"val": held_out}, 0.6).match(text) is not None) == near


def test_contrast_pairs_are_not_near_each_other() -> None:
    assert Contamination({"val": ["a red book and a yellow vase"]}, 0.8).match("a yellow book and a red vase") is None


def corpus(folder: Path, train: list[str], val: list[str], **changes: object) -> Corpus:
    (folder / "t2i").mkdir(exist_ok=True)
    (folder / "t2i/color_train.txt").write_text("\n".join(train))
    (folder / "t2i/color_val.txt").write_text("\n".join(val))
    source = {"name": "t2i", "format": "t2i_compbench", "path": str(folder / "t2i")}
    values = {
        "sources": [source],
        "decontaminate": True,
        "evaluation": [],
        "near_duplicate": 0.8,
        "syntax": "strip",
        **changes,
    }
    return build_corpus(PromptsParams.model_validate(values), 0, [clip_tokenizer()])


def test_held_out_prompts_leave_the_training_split(tmp_path: Path) -> None:
    """Three training prompts: one held out, one twice (its case differs)."""
    built = corpus(tmp_path, ["a red ball", "A Blue cube.", "a blue cube"], ["A red ball!"])
    assert [(row["text"], row["split"]) for row in built.rows] == [("A red ball!", "test"), ("A Blue cube.", "train")]
    dropped = {"duplicate": 1, "in the evaluation": 1}
    assert built.report == {
        "total": {"train": 1, "test": 1, "too_long": 0},
        "sources": {"t2i": {"read": 4, "kept": 2, "held_out": 1, "dropped": dropped, "too_long": 0}},
        "evaluation": {"t2i": {"prompts": 1, "exact": 1, "near": 0}},
        # a, red, ball and !, or A, Blue, cube and a stop, between start and end.
        "tokens": {"median": 6, "p95": 6, "max": 6, "limit": MAX_TOKENS},
        "languages": {"English": 2},
        "examples": {"t2i": ["A red ball!", "A Blue cube."]},
        "syntax": {"prompts": 0, "stripped": True, "found": {}},
    }
    dropped = {row["text"]: (row["reason"], row["evaluation"], row["match"]) for row in built.dropped}
    assert dropped == {
        "a red ball": ("in the evaluation", "t2i", "A red ball!"),
        "a blue cube": ("duplicate", None, None),
    }


def test_lists_that_the_user_names_are_kept_out_too(tmp_path: Path) -> None:
    (tmp_path / "bench.json").write_text('[{"caption": "A blue CUBE"}]')
    listed = {"name": "bench", "format": "json", "path": str(tmp_path / "bench.json"), "column": "caption"}
    built = corpus(tmp_path, ["a blue cube", "a red ball"], ["a star"], evaluation=[listed])
    assert [row["text"] for row in built.rows] == ["a star", "a red ball"]
    assert built.report["evaluation"]["bench"] == {"prompts": 1, "exact": 1, "near": 0}


def test_without_decontamination_a_prompt_may_stand_in_both_splits(tmp_path: Path) -> None:
    """The paper's recipe. Evaluation lists are then not read at all: this one is not there."""
    listed = {"name": "bench", "format": "txt", "path": str(tmp_path / "nowhere")}
    built = corpus(tmp_path, ["a red ball"], ["a red ball"], decontaminate=False, evaluation=[listed])
    assert built.report["total"] == {"train": 1, "test": 1, "too_long": 0}
    assert len({row["id"] for row in built.rows}) == 2


def test_duplicates_across_sources_belong_to_the_first(tmp_path: Path) -> None:
    (tmp_path / "one.txt").write_text("a red ball\n")
    (tmp_path / "two.txt").write_text("A red ball.\na cone\n...\n")
    sources = [{"name": name, "format": "txt", "path": str(tmp_path / f"{name}.txt")} for name in ("one", "two")]
    report = corpus(tmp_path, [], [], sources=sources).report["sources"]
    assert report["one"] == {"read": 1, "kept": 1, "held_out": 0, "dropped": {}, "too_long": 0}
    dropped = {"duplicate": 1, "no words": 1}
    assert report["two"] == {"read": 3, "kept": 1, "held_out": 0, "dropped": dropped, "too_long": 0}


def test_a_sample_is_drawn_by_seed_and_keeps_the_order(tmp_path: Path) -> None:
    (tmp_path / "many.txt").write_text("\n".join(f"prompt {i:02d}" for i in range(50)))
    source = {"name": "many", "format": "txt", "path": str(tmp_path / "many.txt"), "sample": 20}

    def drawn(seed: int) -> list[str]:
        values = {
            "sources": [source],
            "decontaminate": True,
            "evaluation": [],
            "near_duplicate": 0.8,
            "syntax": "strip",
        }
        built = build_corpus(PromptsParams.model_validate(values), seed, [clip_tokenizer()])
        assert built.report["sources"]["many"]["dropped"] == {"not drawn": 30}
        return [row["text"] for row in built.rows]

    assert drawn(0) == drawn(0) == sorted(drawn(0))
    assert drawn(0) != drawn(1)


def test_any_source_can_be_held_out(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("a cone\n")
    (tmp_path / "held.txt").write_text("a star\n")
    mine = {"name": "mine", "format": "txt", "path": str(tmp_path / "mine.txt")}
    held = {"name": "held", "format": "txt", "path": str(tmp_path / "held.txt"), "split": "test"}
    built = corpus(tmp_path, [], [], sources=[mine, held])
    assert [(row["text"], row["split"]) for row in built.rows] == [("a star", "test"), ("a cone", "train")]


def test_prompts_that_the_text_encoder_cuts_are_kept_and_counted(tmp_path: Path) -> None:
    """Start and end take two of its tokens, and a word of this tokenizer is one or more."""
    built = corpus(tmp_path, ["a " * (MAX_TOKENS + 1), "a ball"], ["a star"])
    assert len(built.rows) == 3
    assert built.report["sources"]["t2i"]["too_long"] == built.report["total"]["too_long"] == 1


def test_a_corpus_without_training_prompts_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no training prompt is left"):
        corpus(tmp_path, ["a red ball"], ["a red ball"])


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ({"format": "t2i_compbench", "split": "test"}, "say their split themselves"),
        ({"format": "hrs", "column": "meta_prompt"}, "no column to choose"),
        ({"format": "lines"}, "'t2i_compbench', 'hrs'"),
    ],
)
def test_what_a_format_does_not_know_is_refused(source: dict, message: str) -> None:
    values = {"sources": [{"name": "x", "path": "x", **source}], "decontaminate": True, "evaluation": []}
    with pytest.raises(ValueError, match=message):
        PromptsParams.model_validate({**values, "near_duplicate": 0.8, "syntax": "strip"})


def test_a_source_is_not_called_as_a_benchmark() -> None:
    """FID takes the images of "coco" for those of COCO's captions; a list to compare with may be called so."""
    own = {"name": "coco", "format": "txt", "path": "x"}
    values = {"decontaminate": True, "near_duplicate": 0.8, "syntax": "strip"}
    with pytest.raises(ValueError, match=r"a source is named .coco., as a benchmark of samples\.benchmarks"):
        PromptsParams.model_validate({**values, "sources": [own], "evaluation": []})
    PromptsParams.model_validate({**values, "sources": [own | {"name": "mine"}], "evaluation": [own]})


def test_two_lists_of_one_name_are_refused() -> None:
    twin = {"name": "x", "format": "txt", "path": "x"}
    values = {"sources": [twin], "decontaminate": True, "evaluation": [twin], "near_duplicate": 0.8, "syntax": "strip"}
    with pytest.raises(ValueError, match="two lists are named 'x'"):
        PromptsParams.model_validate(values)


def test_linked_folders_are_read_once(tmp_path: Path) -> None:
    """One on another disk, one that a sibling is, one that leads up; nothing hidden."""
    for name in ("lists/v1", "disk", "lists/.git"):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "a.txt").write_text("a cup")
    for name, target in (("latest", "v1"), ("disk", tmp_path / "disk"), ("up", ".."), ("itself", "itself")):
        (tmp_path / "lists" / name).symlink_to(target)
    (tmp_path / "up.txt").write_text("elsewhere")
    found = [path.relative_to(tmp_path / "lists").as_posix() for path in files_below(tmp_path / "lists", hidden=False)]
    assert found == ["disk/a.txt", "v1/a.txt"]
    everything = [path.relative_to(tmp_path / "lists").as_posix() for path in files_below(tmp_path / "lists")]
    assert everything == [".git/a.txt", "disk/a.txt", "latest/a.txt", "v1/a.txt"]


def test_a_folder_that_may_not_be_read_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As `lost+found` of a disk of its own: its files would be missing without a word."""
    (tmp_path / "lost+found").mkdir()
    scan = os.scandir

    def refusing(folder: Path) -> Iterator[os.DirEntry]:
        if folder.name == "lost+found":
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(folder))
        return scan(folder)

    monkeypatch.setattr(os, "scandir", refusing)
    with pytest.raises(UserError, match=r"lost\+found: Permission denied; let it be read, or give a folder without it"):
        files_below(tmp_path)
