"""The preference study: a blind page, its key, and the arithmetic of votes."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from rich.console import Console

from comat.cli import app
from comat.errors import UserError, clean
from comat.preference.study import CRITERIA, Key, write_study
from comat.preference.votes import (
    Tally,
    Votes,
    agreement,
    majority,
    preferred,
    read_key,
    read_votes,
    show_votes,
    summary,
    tally,
)
from comat.storage.tables import IMAGE_INDEX, read_table, write_table
from tests.conftest import ROOT
from tests.test_cli import CliRunner
from tests.test_report import Page

COLOURS = {"base": "red", "tuned": "blue"}


@pytest.fixture
def folders(tmp_path: Path) -> dict[str, Path]:
    """Three prompts, two seeds each; the base draws red squares, the tuned model blue ones."""
    found = {model: tmp_path / model for model in COLOURS}
    for model, folder in found.items():
        rows = []
        for id in ("p", "q", "r"):
            for seed in range(2):
                path = f"images/{id}-{seed}.png"
                (folder / "images").mkdir(parents=True, exist_ok=True)
                Image.new("RGB", (8, 8), COLOURS[model]).save(folder / path)
                row = {"model": model, "prompt_id": id, "text": f"prompt <{id}>", "source": "s", "category": "c"}
                rows.append({**row, "seed": seed, "path": path})
        write_table(folder / "index.parquet", rows, IMAGE_INDEX)
    return found


def study(folders: dict[str, Path], out: Path, count: int = 100, seed: int = 0) -> tuple[str, Key]:
    write_study(folders, count, seed, out / "page.html", out / "key.json")
    return (out / "page.html").read_text(encoding="utf-8"), read_key(out / "key.json")


def pairs_of(page: str) -> list[dict]:
    return json.loads(re.search(r"PAIRS = (\[.*\]);", page)[1])


def test_the_page_is_blind_and_whole_and_the_key_tells(folders: dict[str, Path], tmp_path: Path) -> None:
    import base64
    import io

    text, key = study(folders, tmp_path)
    page = Page(text)
    assert not page.open and not page.addresses and not re.search(r"url\(|https?:", text)
    assert all(image["alt"] for image in page.images)
    assert not re.search(r"tuned|comat/|CoMat", text.replace("comat-preference-", "")) and "<q>" not in text
    assert sorted(pair.prompt_id for pair in key.pairs) == ["p", "q", "r"], "each prompt is asked once"
    for asked, shown in zip(key.pairs, pairs_of(text), strict=True):
        assert {asked.left, asked.right} == {"base", "tuned"} and shown["text"] == asked.text
        for side in ("left", "right"):
            data = base64.b64decode(shown[side].partition(",")[2])
            pixel = Image.open(io.BytesIO(data)).convert("RGB").getpixel((0, 0))
            assert pixel == {"base": (255, 0, 0), "tuned": (0, 0, 255)}[getattr(asked, side)]


def test_seed_and_images_decide_and_sides_are_mixed(folders: dict[str, Path], tmp_path: Path) -> None:
    assert study(folders, tmp_path) == study(folders, tmp_path), "the same study may be written again"
    assert study(folders, tmp_path) == study(folders, tmp_path / "elsewhere")
    keys = [study(folders, tmp_path / str(seed), seed=seed)[1] for seed in range(12)]
    assert len({key.study for key in keys}) == 12
    assert {pair.left for key in keys for pair in key.pairs} == {"base", "tuned"}
    assert len(study(folders, tmp_path / "two", count=2)[1].pairs) == 2


def asked_of(key: Key) -> list[tuple[str, int]]:
    return [(pair.prompt_id, pair.seed) for pair in key.pairs]


def test_another_run_is_another_study_with_sides_of_its_own(folders: dict[str, Path], tmp_path: Path) -> None:
    """One image of one pair is drawn anew, twelve times: the same pairs are asked, no study is any other's, and of the
    eight ways in which the sides of three pairs can stand there are several."""
    first = study(folders, tmp_path / "first")[1]
    shown = first.pairs[0]
    image = folders["tuned"] / f"images/{shown.prompt_id}-{shown.seed}.png"
    keys = [first]
    for number in range(1, 13):
        Image.new("RGB", (8, 8), (number, 0, 255)).save(image)
        keys.append(study(folders, tmp_path / str(number))[1])
    assert len({key.study for key in keys}) == 13 and all(asked_of(key) == asked_of(first) for key in keys)
    assert len({tuple(pair.left for pair in key.pairs) for key in keys}) > 2
    file = saved(tmp_path / "v.json", votes(first, "a", "tuned").model_dump())
    of_first = CliRunner().invoke(app, ["votes", str(file), "--key", str(tmp_path / "first/key.json")])
    assert of_first.exit_code == 0, of_first.output
    refused = CliRunner().invoke(app, ["votes", str(file), "--key", str(tmp_path / "1/key.json")])
    assert refused.exit_code == 1
    assert f"votes of study '{first.study}', the key is of {keys[1].study}" in refused.stderr


def test_the_order_of_base_and_tuned_is_part_of_a_study(folders: dict[str, Path], tmp_path: Path) -> None:
    """Swapped, the models' images are the same files, and a vote for the left image means the other model."""
    swapped = {"base": folders["tuned"], "tuned": folders["base"]}
    assert study(folders, tmp_path / "a")[1].study != study(swapped, tmp_path / "b")[1].study


def test_nothing_but_the_same_study_is_written_over(folders: dict[str, Path], tmp_path: Path) -> None:
    _, first = study(folders, tmp_path)
    mine = tmp_path / "params.yaml"
    mine.write_text("seed: 0\n")
    page, key = tmp_path / "page.html", tmp_path / "key.json"
    before = {path: path.read_bytes() for path in (mine, page, key)}
    nothing = f"expected nothing, or the page of study {first.study}; found another file; give another --out, or move"
    for out, other, seed, message in (
        (mine, key, 0, f"params.yaml: {nothing}"),
        (key, tmp_path / "new.json", 0, f"key.json: {nothing}"),
        (page, mine, 0, "params.yaml: expected nothing, or the key of study"),
        (page, page, 0, "page.html: the page and its key are one file; give --out and --key two names"),
        (page, tmp_path / "a/../page.html", 0, "the page and its key are one file"),
        (page, tmp_path / "new.json", 1, f"found the page of study {first.study}, whose pairs or images are others"),
        (tmp_path / "new.html", key, 1, f"found the key of study {first.study}, whose pairs or images are others"),
        (tmp_path, tmp_path / "new.json", 0, "found another file"),
    ):
        with pytest.raises(UserError, match=re.escape(message)):
            write_study(folders, 100, seed, out, other)
    assert {path: path.read_bytes() for path in before} == before
    assert not (tmp_path / "new.html").exists() and not (tmp_path / "new.json").exists()


def test_no_common_prompt_is_an_error(folders: dict[str, Path], tmp_path: Path) -> None:
    write_table(folders["tuned"] / "index.parquet", [], IMAGE_INDEX)
    with pytest.raises(UserError, match="no prompt was drawn by both models"):
        study(folders, tmp_path)
    assert not (tmp_path / "page.html").exists() and not (tmp_path / "key.json").exists()


def test_the_prompts_may_be_those_of_dsg_alone(folders: dict[str, Path], tmp_path: Path) -> None:
    for folder in folders.values():
        rows = read_table(folder / "index.parquet", IMAGE_INDEX)
        write_table(
            folder / "index.parquet",
            [row | {"source": "dsg" if row["prompt_id"] == "q" else "s"} for row in rows],
            IMAGE_INDEX,
        )
    write_study(folders, 100, 0, tmp_path / "page.html", tmp_path / "key.json", "dsg")
    assert [pair.prompt_id for pair in read_key(tmp_path / "key.json").pairs] == ["q"]
    with pytest.raises(UserError, match=r"no prompt of source 'tifa' was drawn by both models \(there: dsg, s\)"):
        write_study(folders, 100, 0, tmp_path / "other.html", tmp_path / "other.json", "tifa")
    assert not (tmp_path / "other.html").exists()


def test_a_study_on_dsg_from_the_prompts_to_five_voters(folders: dict[str, Path], tmp_path: Path) -> None:
    """By the commands, on images in the place of 1,060 prompts': 100 of 120, and voters made up by hand.

    Three voters prefer the tuned model everywhere; one the base in the first 20 pairs and the tuned one in the others;
    one answers the first 50 alone, each time "no difference". So the majority is the tuned model's everywhere.
    """
    data = tmp_path / "data"
    for model, name in (("base", "base_samples"), ("tuned", "samples")):
        (data / name / "images").mkdir(parents=True)
        Image.new("RGB", (8, 8), COLOURS[model]).save(data / name / "images/one.png")
        rows = [
            {"model": model, "prompt_id": str(n), "text": f"prompt {n}", "source": "dsg" if n < 120 else "s"}
            | {"category": "dsg", "seed": 0, "path": "images/one.png"}
            for n in range(130)
        ]
        write_table(data / name / "index.parquet", rows, IMAGE_INDEX)
    where = ["--key", str(tmp_path / "key.json")]
    asked = ["preference", "--source", "dsg", "--out", str(tmp_path / "page.html"), "--data", str(data), *where]
    done = CliRunner().invoke(app, [*asked, "--params", str(ROOT / "params.yaml")])
    assert done.exit_code == 0, done.output
    assert "100 pairs" in done.output
    key = read_key(tmp_path / "key.json")
    assert len(key.pairs) == 100 and all(int(pair.prompt_id) < 120 for pair in key.pairs)
    voters = {f"v{n}": ["tuned"] * 100 for n in range(3)}
    voters |= {"doubts": ["base"] * 20 + ["tuned"] * 80, "sees nothing": ["tie"] * 50}
    files = []
    for name, choices in voters.items():
        files.append(tmp_path / f"{name}.json")
        files[-1].write_text(votes(key, name, *choices).model_dump_json())
    said = CliRunner().invoke(app, ["votes", *map(str, files), *where], env={"COLUMNS": "200"})
    assert said.exit_code == 0, said.output
    lines = {line.split("  ")[1].strip(): line for line in said.output.splitlines() if line.startswith("alignment")}
    assert lines["all votes"].split()[-7:-3] == ["380", "20", "50", "95.0%"]
    assert lines["majority of each pair"].split()[-7:-3] == ["100", "0", "0", "100.0%"]
    assert "Krippendorff's alpha" in said.output


def test_the_exact_interval_of_a_binomial() -> None:
    """Of n that all prefer the tuned model, the lower end is (0.025)^(1/n): for 10, 0.6915; for none, no knowledge."""
    low, high = Tally(10, 0, 5).interval
    assert low == pytest.approx(0.025 ** (1 / 10)) and high == 1
    assert Tally(0, 0, 3).share is None and Tally(0, 0, 3).interval == (0, 1)
    assert Tally(3, 1, 9).share == 0.75, "ties choose nobody"


@given(st.integers(0, 30), st.integers(0, 30), st.integers(0, 30))
def test_the_interval_holds_the_share_and_turns_with_the_sides(tuned: int, base: int, ties: int) -> None:
    own, other = Tally(tuned, base, ties), Tally(base, tuned, ties)
    (low, high), (other_low, other_high) = own.interval, other.interval
    assert own.share is None or low <= own.share <= high
    assert (low, high) == pytest.approx((1 - other_high, 1 - other_low), abs=1e-9)


def votes(key: Key, voter: str, *choices: str) -> Votes:
    """Answers by model ("base", "tuned", "tie") to the alignment question, in the order of the pairs."""
    sides = [{pair.left: "left", pair.right: "right", "tie": "tie"} for pair in key.pairs]
    own = {str(number): sides[number][choice] for number, choice in enumerate(choices)}
    return Votes(study=key.study, voter=voter, votes={"alignment": own})


def test_a_majority_counts_each_pair_once(folders: dict[str, Path], tmp_path: Path) -> None:
    """Pair 0: 2 to 1 for tuned. Pair 1: one each and a tie: a tie. Pair 2: base, and one who did not answer."""
    _, key = study(folders, tmp_path)
    voters = [
        votes(key, "a", "tuned", "tuned", "base"),
        votes(key, "b", "tuned", "base"),
        votes(key, "c", "base", "tie", "base"),
    ]
    assert preferred(voters[0], key, "alignment") == {0: "tuned", 1: "tuned", 2: "base"}
    assert majority(preferred(one, key, "alignment") for one in voters) == {0: "tuned", 1: "tie", 2: "base"}
    rows = {(criterion, who): own for criterion, who, own in summary(voters, key)}
    assert rows["alignment", "all votes"] == Tally(3, 4, 1)
    assert rows["alignment", "majority of each pair"] == Tally(1, 1, 1)
    assert rows["quality", '"a"'] == tally([]), "the other question was not answered"
    console = Console(record=True, width=120)
    show_votes(summary(voters[:1], key), console)
    shown = console.export_text()
    assert "66.7%" in shown and "nobody chose" in shown and "all votes" not in shown


def test_agreement_by_hand() -> None:
    """Two voters on four pairs, one apart: of 8 votes 5 are for tuned, 3 for base. 2 of 8 coincidences disagree, by
    chance 30 of 56 would: 1 - (2/8) / (30/56) = 8/15. A pair that one of them left out changes nothing."""
    one = dict(enumerate(["tuned", "tuned", "base", "base"]))
    two = dict(enumerate(["tuned", "tuned", "base", "tuned"]))
    assert agreement([one, two]) == pytest.approx(8 / 15)
    assert agreement([{**one, 4: "base"}, two]) == pytest.approx(8 / 15)
    assert agreement([one, one]) == 1
    assert agreement([{0: "tuned"}, {0: "tuned"}]) is None, "nothing differs: no agreement to speak of"
    assert agreement([{0: "tuned"}, {1: "base"}]) is None and agreement([{}, {}]) is None


@given(st.lists(st.dictionaries(st.integers(0, 4), st.sampled_from(["base", "tie", "tuned"])), min_size=2, max_size=4))
def test_agreement_is_at_most_one_whoever_comes_first(voters: list[dict[int, str]]) -> None:
    alpha = agreement(voters)
    assert alpha is None or alpha <= 1 + 1e-9
    assert agreement(voters[::-1]) == (alpha if alpha is None else pytest.approx(alpha))


def test_several_synthetic_voters_are_summed_up_with_their_agreement(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(project)
    key = str(tmp_path / "key.json")
    CliRunner().invoke(app, ["preference", "--out", str(tmp_path / "page.html"), "--key", key, "--count", "2"])
    own = read_key(Path(key))
    files = [
        str(saved(tmp_path / f"{name}.json", votes(own, name, "tuned", choice).model_dump()))
        for name, choice in (("a", "base"), ("b", "base"), ("c", "base"))
    ]
    result = CliRunner().invoke(app, ["votes", *files, "--key", key])
    said = " ".join(result.stdout.split())
    assert result.exit_code == 0 and "alignment 1.00, quality undefined" in said, said


def saved(path: Path, value: object) -> Path:
    path.write_text(json.dumps(value))
    return path


def test_files_that_are_no_votes_are_named(folders: dict[str, Path], tmp_path: Path) -> None:
    _, key = study(folders, tmp_path)
    good = votes(key, "a", "tuned").model_dump()
    bad = {
        "of study": {**good, "study": "another"},
        "criterion 'beauty', expected one of alignment, quality": {**good, "votes": {"beauty": {}}},
        "pair '3', expected a number below 3": {**good, "votes": {"alignment": {"3": "left"}}},
        "Input should be 'left', 'right' or 'tie'": {**good, "votes": {"alignment": {"0": "both"}}},
        "voter: Field required": {"study": key.study, "votes": {}},
        "Input should be an object": [],
    }
    for number, (message, value) in enumerate(bad.items()):
        with pytest.raises(UserError, match=rf"{number}\.json: .*{re.escape(message)}"):
            read_votes([saved(tmp_path / f"{number}.json", value)], key)
    with pytest.raises(UserError, match="a second file of voter 'a'"):
        read_votes([saved(tmp_path / f"{name}.json", good) for name in ("one", "two")], key)
    with pytest.raises(UserError, match=r"none\.json: no such file; expected a key"):
        read_key(tmp_path / "none.json")


def test_commands_write_the_study_and_sum_the_votes_up(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(project)
    out, key = str(tmp_path / "page.html"), str(tmp_path / "key.json")
    result = CliRunner().invoke(app, ["preference", "--out", out, "--key", key, "--count", "1"])
    assert result.exit_code == 0 and "1 pairs" in result.stdout
    file = saved(tmp_path / "v.json", votes(read_key(Path(key)), "a", "tuned").model_dump())
    result = CliRunner().invoke(app, ["votes", str(file), "--key", key])
    assert result.exit_code == 0 and "100.0%" in result.stdout and set(CRITERIA) <= set(result.stdout.split())


@pytest.mark.parametrize("voter", ["[/b]", "[link=x]", "all votes", "a\x1b[31mb"])
def test_a_voters_name_is_text_whatever_it_holds(folders: dict[str, Path], tmp_path: Path, voter: str) -> None:
    _, key = study(folders, tmp_path)
    named = [votes(key, name, "tuned") for name in (voter, "b")]
    console = Console(record=True, width=160)
    show_votes(summary(named, key), console)
    shown = console.export_text()
    assert f'"{clean(voter)}"' in shown and "\x1b" not in shown
    assert len(re.findall(r"^(?:alignment|quality) +all votes ", shown, re.MULTILINE)) == 2
