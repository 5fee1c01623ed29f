"""`comat evaluate --method`: the run's own models by a training-free method, judged beside base and tuned."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest
from ruamel.yaml import YAML
from typer.testing import CliRunner

from comat.cli import app
from comat.diffusion.backbones import load_base
from comat.errors import UserError
from comat.params import load
from comat.reporting.peers import read_peers
from comat.running.workdir import sum_of
from comat.samples.peer_method import MethodRun, phrase_of, pictures_by_method
from comat.samples.peers import Peer, draw_peer
from comat.storage.tables import ENTITIES, IMAGE_INDEX, PROMPTS, read_table, sha256, write_table
from tests.test_publish import write_lock


def evaluate(project: Path, out: Path, *options: str, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.chdir(project)
    return CliRunner().invoke(app, ["evaluate", "--out", str(out), *options]).output


@pytest.mark.parametrize("method", ["composable", "structured", "attend_and_excite"])
def test_a_method_is_a_peer(project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: str) -> None:
    """On the base and on the tuned model: other images than theirs, a column in the table, nothing drawn twice."""
    output = evaluate(project, tmp_path, "--method", method, monkeypatch=monkeypatch)
    assert method[:8] in output, output
    evaluate(project, tmp_path, "--method", method, "--tuned", monkeypatch=monkeypatch)
    rows = read_table(tmp_path / method / "index.parquet", IMAGE_INDEX)
    plain = project / "data/base_samples"
    read = {row["path"]: (tmp_path / method / row["path"]).read_bytes() for row in rows}
    assert any(read[path] != (plain / path).read_bytes() for path in read)
    tuned = tmp_path / f"{method}-tuned"
    assert any(read[path] != (tuned / path).read_bytes() for path in read)
    record = json.loads((tuned / "peer.json").read_text())
    assert record["method"] == method and record["lora"] == "data/train/lora"
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / method / "images").iterdir()}
    evaluate(project, tmp_path, "--method", method, monkeypatch=monkeypatch)
    assert {path: path.stat().st_mtime_ns for path in before} == before


def test_what_else_decides_over_a_method_is_kept_and_compared(broken: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The sampler and the autoencoder of the run, its entities and its LoRA: images of others stayed, and unmarked."""
    monkeypatch.chdir(broken)
    params, out = load(Path("params.yaml")), Path("peers/x")
    data, base = Path("data"), Path("data/base_samples")
    peer = Peer("x", None, MethodRun("composable", data, tuned=True))
    draw_peer(params, 4, peer, base, out)
    record = json.loads((out / "peer.json").read_text())
    entities, lora = data / "entities/entities.parquet", data / "train/lora/pytorch_lora_weights.safetensors"
    assert (record["scheduler"], record["vae"], record["vae_revision"]) == (params.scheduler, params.vae, None)
    assert (record["entities"], record["lora_file"]) == (sha256(entities), sha256(lora))
    assert record["warmup"] == sum_of(data / "warmup")

    (out / "metrics.json").write_text("{}")
    assert read_peers(data / "evaluate", base, out.parent) == ({"x": {}}, [])
    other = params.model_copy(update={"scheduler": "euler" if params.scheduler != "euler" else "ddim"})
    with pytest.raises(UserError, match=r"another model or run \(scheduler, fingerprint\)"):
        draw_peer(other, 4, peer, base, out)
    write_table(entities, read_table(entities, ENTITIES)[1:], ENTITIES)
    with pytest.raises(UserError, match=r"another model or run \(entities, fingerprint\)"):
        draw_peer(params, 4, peer, base, out)
    lora.write_bytes(lora.read_bytes() + b" ")
    (data / "warmup/again").write_text("another warm-up")
    again = "remove its folder and run `comat evaluate` for it again"
    assert read_peers(data / "evaluate", base, out.parent)[1] == [
        "x: drawn with another entities/entities.parquet and drawn with another "
        f"train/lora/pytorch_lora_weights.safetensors and drawn with another warmup; {again}"
    ]
    new = ("scheduler", "vae", "entities", "lora_file", "warmup")
    old = {key: value for key, value in record.items() if key not in new}
    (out / "peer.json").write_text(json.dumps(old))
    assert read_peers(data / "evaluate", base, out.parent)[1] == [
        f"x: drawn with unknown scheduler, vae, entities, lora_file, warmup; {again}"
    ]


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["--method", "magic"], "expected composable, structured, attend_and_excite"),
        (["--method", "composable", "--model", "x"], "give it or --model, not both"),
        (["--tuned", "--name", "x"], "--tuned goes with --method"),
    ],
)
def test_what_does_not_go_together_is_one_line(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys, options: list[str], expected: str
) -> None:
    output = evaluate(project, tmp_path, *options, monkeypatch=monkeypatch)
    assert expected in output.replace("\n", " ") + capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_a_run_that_is_not_finished_is_said(tmp_path: Path, project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    options = ["--method", "structured", "--data", str(tmp_path / "none")]
    output = evaluate(project, tmp_path / "out", *options, monkeypatch=monkeypatch)
    assert "`dvc repro` first" in output.replace("\n", " ")


def test_a_run_that_is_not_judged_is_said_before_anything_is_drawn(
    tmp_path: Path, project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    """Whose result the new column would stand beside: it was missed after hours of drawing."""
    shutil.copytree(project / "data", tmp_path / "data", ignore=shutil.ignore_patterns("evaluate"))
    options = ["--method", "composable", "--data", str(tmp_path / "data")]
    output = evaluate(project, tmp_path / "out", *options, monkeypatch=monkeypatch)
    assert "data/evaluate/metrics.json: no result here" in output.replace("\n", " ") + capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_phrases_are_entities_in_words(project: Path) -> None:
    """ "two green stars" keeps its numeral, "a red ball" its article; columns are those of the noun."""
    backbone = load_base(load(project / "params.yaml").base_model)
    texts = {row["id"]: row["text"] for row in read_table(project / "data/prompts/prompts.parquet", PROMPTS)}
    found = {}
    for row in read_table(project / "data/entities/entities.parquet", ENTITIES):
        if texts[row["prompt_id"]] in ("two green stars", "a red ball and a blue cube"):
            phrase = phrase_of(backbone, row, texts[row["prompt_id"]])
            words = backbone.words(texts[row["prompt_id"]])
            found[phrase.text] = [words[column] for column in phrase.noun_columns]
    assert found == {"two green stars": ["stars"], "a red ball": ["ball"], "a blue cube": ["cube"]}


@pytest.mark.parametrize(
    ("attributes", "noun", "expected"),
    [
        (["fluffy"], "cat", "the fluffy cat"),
        (["leather"], "collar", "leather collar"),
        (["rubber"], "gloves", "rubber gloves"),
        (["wooden"], "table", "a wooden table"),
        (["old"], "cat", "an old cat"),
    ],
)
def test_a_phrase_has_the_determiner_of_its_prompt(project: Path, attributes, noun, expected) -> None:
    """ "a leather collar" would stand nowhere in the prompt; of words that are not together it is "a"."""
    backbone = load_base(load(project / "params.yaml").base_model)
    entity = {"numerals": [], "attributes": attributes, "noun": noun, "noun_tokens": [[1]] * len(backbone.tokenizers)}
    prompt = "The fluffy cat that is old and leather collar, rubber gloves and a wooden table"
    assert phrase_of(backbone, entity, prompt).text.lower() == expected


def test_a_peer_is_drawn_by_what_the_base_was_drawn_by(broken: Path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(broken)
    values = YAML(typ="safe").load(Path("params.yaml"))
    write_lock(Path("dvc.lock"), values | {"sampling_steps": values["sampling_steps"] + 1, "precision": "bf16"})
    output = evaluate(broken, broken / "out", "--method", "composable", monkeypatch=monkeypatch)
    said = output.replace("\n", " ") + capsys.readouterr().err
    assert re.search(r"but the stage base_samples was run with \S+ \(dvc.lock\); run `dvc repro`", said), said
    assert not (broken / "out").exists()
    output = evaluate(broken, broken / "out", "--name", "elsewhere", monkeypatch=monkeypatch)  # nothing is drawn
    said = output + capsys.readouterr().err
    assert "elsewhere" in said and "base_samples was run" not in said, said


def test_prompts_that_a_method_can_do_nothing_for_are_said(project: Path, monkeypatch, capsys) -> None:
    """One of two drawn prompts is not among the entities: a line; both: an error before anything is drawn."""
    monkeypatch.chdir(project)
    params, run = load(Path("params.yaml")), MethodRun("composable", Path("data"))
    (known, *_) = read_table(Path("data/base_samples/index.parquet"), IMAGE_INDEX)
    strange = {**known, "prompt_id": "of a benchmark"}
    assert len(next(pictures_by_method(params, run, [[known, strange]]))) == 2
    assert "composable: 1 of 2 prompts have no entities" in capsys.readouterr().err
    with pytest.raises(UserError, match="none of the 1 prompts has entities"):
        next(pictures_by_method(params, run, [[strange]]))


def test_a_method_stands_beside_images_of_the_same_run(broken: Path, monkeypatch, capsys) -> None:
    """`dvc repro` ended after the warm-up, or after training: a method would draw with what was not judged."""
    monkeypatch.chdir(broken)
    write_lock(Path("dvc.lock"), YAML(typ="safe").load(Path("params.yaml")))
    whole = YAML(typ="safe").load(Path("dvc.lock"))
    for stage, out, reader in (("warmup", "data/warmup", "base_samples"), ("train", "data/train/lora", "samples")):
        whole["stages"][stage]["outs"] = [{"path": out, "md5": "1.dir"}]
        whole["stages"][reader]["deps"] = [{"path": out, "md5": "1.dir"}]
    for stage, options in (("warmup", []), ("train", ["--tuned"])):
        (made,) = whole["stages"][stage]["outs"]
        made["md5"] = "2.dir"
        YAML().dump(whole, Path("dvc.lock"))
        output = evaluate(broken, broken / "out", "--method", "composable", *options, monkeypatch=monkeypatch)
        said = output.replace("\n", " ") + capsys.readouterr().err
        assert f"was run with another {made['path']} than the stage {stage} has made since" in said, said
        assert not (broken / "out").exists()
        made["md5"] = "1.dir"
