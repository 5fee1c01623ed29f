"""`comat prompts` and `comat init`: they say what the stages do, and write nothing where anything is wrong."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest
from PIL import Image
from ruamel.yaml import YAML
from typer.testing import CliRunner

from comat.cli import app
from comat.corpora.build import build_corpus, check_held_out
from comat.corpora.overview import spread
from comat.corpora.own.init import _changed
from comat.errors import UserError
from comat.evaluation.captioner import CaptionerScore
from comat.judges.benchmark import Drawn
from comat.judges.later import Later
from comat.params import PromptsParams, load
from comat.shapes.recipe.tokenizers import clip_tokenizer
from comat.storage.prompt_language import language
from comat.storage.tables import PROMPTS, read_table
from tests.conftest import ROOT, STAGES, run

SIZES, COLOURS, OTHERS = ("big", "small"), ("red", "blue", "green"), ("pink", "yellow", "black", "white", "orange")
WORLD = [f"a {size} {own} ball and a {other} cube" for size in SIZES for own in COLOURS for other in OTHERS]
NATURAL = [f"a {colour} kettle on a stool, view {n}" for colour in ("teal", "red") for n in range(10)]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project with the embedded default, and the user's things beside it."""
    project = tmp_path / "project"
    (project / "data/own").mkdir(parents=True)
    (project / "data/shapes").symlink_to(ROOT / "data/shapes")
    shutil.copy(ROOT / "params.yaml", project)
    shutil.copytree(ROOT / "presets", project / "presets")
    (tmp_path / "my.txt").write_text("\n".join([*WORLD, WORLD[0].upper(), "..."]))
    (tmp_path / "natural.csv").write_text("id;caption\n" + "\n".join(f"{n};{text}" for n, text in enumerate(NATURAL)))
    (tmp_path / "photos").mkdir()
    for name in "abc":
        Image.new("RGB", (80, 70)).save(tmp_path / f"photos/{name}.png")
    (tmp_path / "photos/a.txt").write_text("a dark room")
    monkeypatch.chdir(project)
    return project


def call(*words: str) -> str:
    done = CliRunner().invoke(app, list(words))
    assert done.exit_code == 0, done.stderr
    return done.stdout


def refused(*words: str) -> str:
    done = CliRunner().invoke(app, list(words))
    assert done.exit_code == 1
    return done.stderr


def written(project: Path) -> set[str]:
    return {path.relative_to(project).as_posix() for path in (project / "data/own").rglob("*") if path.is_file()}


def test_what_is_shown_is_what_the_stage_says_afterwards(folder: Path) -> None:
    """32 lines: one a duplicate, one without words; 3 of the 30 held out."""
    shown = json.loads(call("prompts", "../my.txt", "--hold-out", "0.1", "--json"))
    assert written(folder) == set()
    assert shown["total"] == {"train": 27, "test": 3, "too_long": 0}
    assert shown["sources"]["my"]["dropped"] == {"duplicate": 1, "no words": 1}
    text = call("init", "--prompts", "../my.txt")
    assert "prompts.sources: " in text and "30" in text
    run("models", folder)
    run("prompts", folder)
    assert json.loads((folder / "data/prompts/report.json").read_text()) == shown
    assert json.loads(call("prompts", "--json")) == shown


def test_what_is_shown_names_everything(folder: Path) -> None:
    text = call("prompts", "../my.txt", "../natural.csv")
    for part in (
        "32",
        "1 duplicate, 1 no words",
        "languages, guessed: English 50",
        WORLD[0].split()[0],
        "dropped, no words",
        "note",
    ):
        assert part in text
    assert "no prompt is held out" in text


def test_own_images_and_prompts_are_taken_in(folder: Path) -> None:
    text = call("init", "--prompts", "../natural.csv", "--images", "../photos", "--hold-out", "0.2")
    assert "text files beside the images, 1 images with a caption, 2 without" in text
    assert written(folder) == {
        "data/own/prompts/natural.csv",
        *(f"data/own/images/photos/{name}" for name in ("a.png", "b.png", "c.png", "a.txt")),
    }
    params = load("params.yaml")
    source = params.prompts.sources[0]
    assert (source.path, source.format, source.column, source.hold_out) == (
        "data/own/prompts/natural.csv",
        "csv",
        "caption",
        0.2,
    )
    assert (params.image_latents.images, params.image_latents.captions) == ("data/own/images/photos", None)
    assert not params.evaluate.oracle and params.evaluate.frechet is None and params.evaluate.captioner
    assert "the embedded base draws coloured shapes" in text
    before = (folder / "params.yaml").read_text()
    again = call(
        "init", "--prompts", "data/own/prompts/natural.csv", "--images", "data/own/images/photos", "--hold-out", "0.2"
    )
    assert (folder / "params.yaml").read_text() == before and "→" not in again


@pytest.mark.slow
def test_init_leads_to_a_report(folder: Path) -> None:
    """The embedded base, 20 prompts of which 4 are held out, two captioned images: every stage, in miniature."""
    (folder.parent / "photos/b.txt").write_text("a kettle on a stool")
    call("init", "--prompts", "../natural.csv", "--images", "../photos", "--hold-out", "0.2")
    values = YAML(typ="rt").load(Path("params.yaml").read_text())
    values |= {"resolution": 32, "sampling_steps": 2, "grad_steps": 1, "attribute_steps": 1, "lora_rank": 2}
    values |= {"train_steps": 1, "global_batch": 2, "image_batch": 1}
    values["warmup_images"] |= {"count": 2}
    values["warmup"] |= {"steps": 1, "batch_size": 2}
    values["reference_latents"] |= {"count": 4}
    values["train"]["preview"] |= {"every": 0}
    values["samples"] |= {"seeds": 1, "attention_prompts": 1}
    YAML(typ="rt").dump(values, Path("params.yaml"))
    for stage in STAGES:
        run(stage, folder)
    evaluated = folder / "data/evaluate"
    report = (evaluated / "report.html").read_text(encoding="utf-8")
    assert "<strong>4</strong> pairs of images" in report
    assert "16 prompts to train on, of which 4, drawn by seed, have reference latents" in report
    assert "and are trained on, 4 held out" in report
    assert json.loads((evaluated / "metrics.json").read_text()).keys() == {"captioner"}


def test_prompts_of_the_world_keep_its_judges(folder: Path) -> None:
    call("init", "--prompts", "../my.txt")
    on = load("params.yaml").evaluate
    assert on.oracle and on.frechet and not on.captioner
    assert load("params.yaml").image_latents.images == "data/shapes/coco/train2017"


def test_a_preset_without_its_images_goes_on_without(folder: Path) -> None:
    """COCO is not there; CLIPScore judges any prompt, T2I-CompBench its own."""
    call("preset", "sd15")
    values = YAML(typ="rt").load(Path("params.yaml").read_text())
    values["base_model"] = "data/shapes/models/base"
    YAML(typ="rt").dump(values, Path("params.yaml"))
    call("init", "--prompts", "../natural.csv")
    params = load("params.yaml")
    assert params.image_latents.images is None and params.image_batch == 0 and params.corpora.fetch == []
    assert params.evaluate.t2i_compbench is None and params.evaluate.clip_score and not params.evaluate.captioner


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--prompts", "../absent.txt"], "no such file or folder"),
        (["--prompts", "../photos/a.png"], "expected prompts in files of one kind"),
        (["--prompts", "../my.txt", "--images", "../absent"], "no such folder"),
        (["--prompts", "../my.txt", "--images", "../empty"], "none of 0 images has a caption"),
        (["--prompts", "../my.txt", "--captions", "../my.txt"], "of which images? give --images as well"),
        (["--prompts", "../my.txt", "--hold-out", "0"], "no prompt is held out"),
        (["--prompts", "../my.txt", "--prompts", "../broken.jsonl"], "broken.jsonl, line 2: not JSON"),
        (
            ["--prompts", "../my.txt", "--prompts", "../other/my.txt"],
            "two of the lists would stand at data/own/prompts/my",
        ),
    ],
)
def test_where_anything_is_wrong_nothing_is_written(folder: Path, words: list[str], message: str) -> None:
    for name in ("empty", "other"):
        (folder.parent / name).mkdir()
    shutil.copy(folder.parent / "my.txt", folder.parent / "other")
    (folder.parent / "broken.jsonl").write_text('{"prompt": "a cup"}\n{"prompt"\n')
    before = (folder / "params.yaml").read_text()
    assert message in refused("init", *words)
    assert (folder / "params.yaml").read_text() == before and written(folder) == set()


def test_what_stands_there_and_is_another_is_not_replaced(folder: Path) -> None:
    """A list and images that were edited since; one that is not read by name stays out as well."""
    call("init", "--prompts", "../natural.csv", "--images", "../photos", "--hold-out", "0.2")
    before = (folder / "params.yaml").read_text()
    again = ["init", "--prompts", "../natural.csv", "--images", "../photos", "--hold-out", "0.2"]
    call(*again)
    images = folder / "data/own/images/photos"
    (images / "a.txt").write_text("a bright room")
    assert "data/own/images/photos: stands there and is not what ../photos is" in refused(*again)
    (images / "a.txt").write_text("a dark room")
    (images / "d.txt").write_text("another")
    assert "stands there" in refused(*again)
    (images / "d.txt").unlink()
    (images / ".hidden").write_text("of no interest")
    call(*again)
    (folder.parent / "photos/b.txt").write_text("a dark roof")
    (images / "b.txt").write_text("a dark root")
    for place in (images, folder.parent / "photos"):
        os.utime(place / "b.txt", (0, 0))
    assert "stands there" in refused(*again)
    for place in (images, folder.parent / "photos"):
        (place / "b.txt").unlink()
    missing = ["init", "--prompts", "../elsewhere/natural.csv", "--hold-out", "0.2"]
    assert "no such file or folder" in refused(*missing)
    listed = folder / "data/own/prompts/natural.csv"
    listed.write_text(listed.read_text() + "99;a mended line\n")
    assert "data/own/prompts/natural.csv: stands there" in refused(*again)
    assert listed.read_text().endswith("a mended line\n") and (folder / "params.yaml").read_text() == before


def test_what_is_taken_in_is_a_copy(folder: Path) -> None:
    """Of a link what it leads to: a relative one would lead nowhere from there."""
    (folder.parent / "store.png").write_bytes((folder.parent / "photos/a.png").read_bytes())
    (folder.parent / "photos/e.png").symlink_to("../store.png")
    (folder.parent / "more").mkdir()
    (folder.parent / "more/f.txt").write_text("a caption")
    (folder.parent / "photos/more").symlink_to("../more")
    Image.new("RGB", (9, 9)).save(folder.parent / "more/f.png")
    (folder.parent / "photos/v1").mkdir()
    (folder.parent / "photos/v1/g.txt").write_text("another caption")
    for name, other in (("again", "."), ("latest", "v1"), ("up", "..")):  # none of which is read
        (folder.parent / "photos" / name).symlink_to(other)
    assert "holds data/own itself" in refused("init", "--prompts", "../natural.csv", "--images", "..")
    for _ in range(2):
        call("init", "--prompts", "../natural.csv", "--images", "../photos", "--hold-out", "0.2")
    assert (folder / "data/own/images/photos/more/f.txt").is_file()
    assert {path.name for path in (folder / "data/own/images/photos").iterdir() if path.is_dir()} == {"more", "v1"}
    taken = folder / "data/own/images/photos"
    (taken / "a.txt").write_text("a bright room")
    assert (folder.parent / "photos/a.txt").read_text() == "a dark room"
    assert not (taken / "e.png").is_symlink()
    assert (taken / "e.png").read_bytes() == (folder.parent / "store.png").read_bytes()


def test_what_stands_on_another_disk_is_used_in_place(folder: Path) -> None:
    (folder.parent / "disk").mkdir()
    (folder / "data/own").rmdir()
    (folder / "data/own").symlink_to(folder.parent / "disk")
    (folder / "data/own/prompts").mkdir()
    shutil.copy(folder.parent / "natural.csv", folder / "data/own/prompts")
    call("init", "--prompts", "data/own/prompts/natural.csv", "--hold-out", "0.2")
    assert load(folder / "params.yaml").prompts.sources[0].path == "data/own/prompts/natural.csv"


@pytest.mark.parametrize("name", ["params.yaml", *(f"presets/{p.name}" for p in (ROOT / "presets").glob("*.yaml"))])
def test_a_parameter_file_keeps_its_comments(name: str) -> None:
    text = (ROOT / name).read_text()
    assert _changed(ROOT / name, {}) == (text, [])
    after, lines = _changed(ROOT / name, {"evaluate.bootstrap": 7})
    assert after == text.replace("bootstrap: 2000", "bootstrap: 7") and lines == ["evaluate.bootstrap: 2000 → 7"]


def corpus(folder: Path, files: dict[str, list[str]], seed: int = 0, **options: object):
    for name, lines in files.items():
        (folder / name).write_text("\n".join(lines))
    source = {"name": "own", "format": "txt", "path": str(folder), **options}
    values = {"sources": [source], "decontaminate": True, "evaluation": [], "near_duplicate": 1.0, "syntax": "keep"}
    return build_corpus(PromptsParams.model_validate(values), seed, [clip_tokenizer()])


def held(rows: list[dict]) -> list[str]:
    return sorted(row["text"] for row in rows if row["split"] == "test")


def test_a_share_of_every_category_is_held_out_by_seed(tmp_path: Path) -> None:
    """A fifth of 50, 10 and 5 prompts; of the single one in a file of its own, perhaps."""
    files = {f"{name}.txt": [f"{name} {i}" for i in range(n)] for name, n in {"a": 50, "b": 10, "c": 5, "d": 1}.items()}
    found = corpus(tmp_path, files, hold_out=0.2)
    counts = {name: sum(text.startswith(name) for text in held(found.rows)) for name in "abcd"}
    assert sum(counts.values()) == 13 == found.report["total"]["test"]
    assert abs(counts["a"] - 10) <= 1 and abs(counts["b"] - 2) <= 1 and abs(counts["c"] - 1) <= 1
    assert held(found.rows) == held(corpus(tmp_path, files, hold_out=0.2).rows)
    assert held(found.rows) != held(corpus(tmp_path, files, seed=1, hold_out=0.2).rows)


def test_a_duplicate_of_a_held_out_prompt_is_not_trained_on(tmp_path: Path) -> None:
    lines = [text for i in range(20) for text in (f"cup {i}", f"Cup {i}!")]
    found = corpus(tmp_path, {"a.txt": lines}, hold_out=0.25)
    assert found.report["total"] == {"train": 15, "test": 5, "too_long": 0}
    folded = {text.strip("!").lower() for text in held(found.rows)}
    assert not folded & {row["text"].strip("!").lower() for row in found.rows if row["split"] == "train"}


def test_of_a_source_without_words_nothing_is_held_out(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no training prompt is left: see prompts\.sources"):
        corpus(tmp_path, {"a.txt": ["🙂", "🙂🙂"]}, hold_out=0.1)


def test_at_least_one_is_held_out_and_one_is_left(tmp_path: Path) -> None:
    assert corpus(tmp_path, {"a.txt": ["a cup", "a jar"]}, hold_out=0.01).report["total"]["test"] == 1
    assert corpus(tmp_path, {"a.txt": ["a cup", "a jar"]}, hold_out=0.99).report["total"]["train"] == 1


def test_a_corpus_with_nothing_held_out_is_refused_unless_a_benchmark_brings_prompts(tmp_path: Path) -> None:
    report = corpus(tmp_path, {"a.txt": ["a cup"]}).report
    files = load(ROOT / "params.yaml").samples.benchmarks
    with pytest.raises(UserError, match=r"no prompt is held out.*hold_out: 0\.1"):
        check_held_out(report, files)
    check_held_out(report, files.model_copy(update={"dpg": "dpg.csv"}))


def test_lengths_by_nearest_rank() -> None:
    """Of 1 to 40: half are at most 20, 95% at most 38."""
    assert spread(range(40, 0, -1)) == {"median": 20, "p95": 38, "max": 40}
    assert spread([7]) == {"median": 7, "p95": 7, "max": 7}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a man in a café de la paix", "English"),
        ("cinematic, 8k, masterpiece", "English"),
        ("ein Hund und eine Katze auf dem Tisch", "German"),
        ("un chat noir sur la table dans le jardin", "French"),
        ("un perro y un gato en la mesa", "Spanish"),
        ("собака на столе", "Cyrillic script"),
        ("一只狗", "Chinese script"),
        ("🐶 a dog", "English"),
    ],
)
def test_languages_by_script_and_small_words(text: str, expected: str) -> None:
    assert language(text) == expected


def test_the_captioner_scores_by_the_mean_over_its_tokens(tiny: Path, project: Path) -> None:
    """The sum of log p over words is that over tokens; the batch changes nothing."""
    import torch

    from comat.captioners.load import load_captioner
    from comat.evaluation.likelihood import read_images

    params = load(project / "params.yaml")
    rows = [row for row in read_table(project / "data/prompts/prompts.parquet", PROMPTS) if row["split"] == "test"]
    files = sorted((project / "data/base_samples/images").glob("*.png"))[: len(rows)]
    images = [Drawn("base", r["id"], r["text"], "s", "c", 0, str(f)) for r, f in zip(rows, files, strict=True)]
    own = load_captioner(params.captioners[0], torch.device("cpu"), torch.float32)
    found = [s.value for s in CaptionerScore(Later("x", lambda: own), 2, torch.device("cpu")).scores(images, Path())]
    params = params.model_copy(update={"caption_prefix": ""})
    words = read_images(params, params, 2, [(Path(image.path), image.text) for image in images])
    for value, read, image in zip(found, words, images, strict=True):
        count = len(own.pieces(image.text))
        assert value == pytest.approx(sum(read.log_p) / count, rel=1e-3)
