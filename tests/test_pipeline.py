"""dvc.yaml says what the stages really read."""

from __future__ import annotations

import ast
import os
import re
import subprocess
from itertools import pairwise

import pytest
from ruamel.yaml import YAML

from comat.models.names import KEYS, role_of
from comat.params import Params
from tests.imports import ROOT, project_imports, room_imports

STAGES = YAML(typ="safe").load((ROOT / "dvc.yaml").read_text())["stages"]
LOCK = "data/models/models.lock.json"


def keys(name: str) -> set[str]:
    """The keys of params.yaml that a stage depends on."""
    return {key for key in STAGES[name]["params"] if isinstance(key, str)}


OUTS = ("data/train", "data/samples")


def covered(deps: list[str], imported: set[str]) -> None:
    """Every imported file is listed, or stands below a folder that is; nothing of the package is listed for nothing."""
    code = [dep for dep in deps if not dep.startswith("data/")]
    assert [file for file in imported if not any(file == dep or file.startswith(f"{dep}/") for dep in code)] == []
    assert [dep for dep in code if not any(file == dep or file.startswith(f"{dep}/") for file in imported)] == []


@pytest.mark.parametrize("name", STAGES)
def test_deps_cover_every_module_that_the_stage_imports(name: str) -> None:
    covered(STAGES[name]["deps"], project_imports(f"stages.{name}"))


EVERY = list(STAGES)
NO_DIFFUSION = ("corpora", "models", "prompts", "entities", "caption_entities")
RERUN = {
    "benchmarks": [],
    "comat/__init__.py": EVERY,
    "comat/captioners": ["models", "train", "evaluate"],
    "comat/cli.py": [],
    "comat/corpora": [
        "corpora",
        "prompts",
        "image_latents",
        "prompt_embeddings",
        "base_samples",
        "train",  # what keeps held-out prompts from it
        "samples",
        "evaluate",
    ],
    "comat/diffusion": [name for name in EVERY if name not in NO_DIFFUSION],
    "comat/discriminators": ["train"],
    "comat/entities": ["entities", "caption_entities", "evaluate"],
    "comat/errors.py": EVERY,
    "comat/estimate": [],
    "comat/evaluation": ["evaluate"],
    "comat/finished": [],
    "comat/judges": ["train", "evaluate"],
    "comat/method": ["train"],
    "comat/models": EVERY,
    "comat/params": EVERY,
    "comat/preference": [],
    "comat/randomness.py": [name for name in EVERY if name not in ("corpora", "models")],
    "comat/reporting": ["evaluate"],
    "comat/running": EVERY,
    "comat/samples": ["prompt_embeddings", "base_samples", "samples", "evaluate"],
    "comat/segmenters": ["train", "evaluate"],
    "comat/shapes/recipe": [],
    "comat/shapes/world": ["train", "evaluate"],
    "comat/storage": EVERY,
    "comat/tokenizers.py": [name for name in EVERY if name not in ("corpora", "models")],
    "comat/training": ["warmup", "train"],
    "tests": [],
}
"""The stages that DVC runs again after a change to a room, before it looks at whether their outs changed.

No benchmark and no report may cost a training run, and no report a drawing.
"""


@pytest.mark.parametrize("room", RERUN)
def test_a_change_to_a_room_reruns_these_stages(room: str) -> None:
    assert [name for name in STAGES if any(f"{dep}/".startswith(f"{room}/") for dep in STAGES[name]["deps"])] == (
        RERUN[room]
    )


def test_every_room_is_in_the_table() -> None:
    assert set(room_imports()) == {room for room in RERUN if room.startswith("comat")} | {"comat/shapes/__init__.py"}


@pytest.mark.parametrize("name", STAGES)
def test_params_exist(name: str) -> None:
    for key in keys(name):
        section, _, field = key.partition(".")
        kind = Params.model_fields[section].annotation
        assert not field or field in kind.model_fields


def test_every_parameter_belongs_to_a_stage() -> None:
    """`device` alone changes no result."""
    used = {key.partition(".")[0] for name in STAGES for key in keys(name)}
    assert set(Params.model_fields) - used == {"device"}


def test_a_lambda_reruns_train_samples_and_evaluate_only() -> None:
    assert [name for name in STAGES if "lambda_adv" in keys(name)] == ["train"]
    users = {out: [n for n in STAGES if any(dep.startswith(out) for dep in STAGES[n]["deps"])] for out in OUTS}
    assert users["data/train"] == ["samples", "evaluate"] and users["data/samples"] == ["evaluate"]


@pytest.mark.parametrize("name", STAGES)
def test_a_stage_depends_on_the_sha256_of_the_models_that_it_binds(name: str) -> None:
    """The roles in its call of `pinned` are those in dvc.yaml; the stage `models` records every role there is."""
    calls = [n for n in ast.walk(ast.parse((ROOT / f"stages/{name}.py").read_text())) if isinstance(n, ast.Call)]
    bound = [c.args[2:] for c in calls if isinstance(c.func, ast.Name) and c.func.id == "pinned"]
    roles = {argument.value for arguments in bound for argument in arguments}
    listed = next((entry[LOCK] for entry in STAGES[name]["params"] if isinstance(entry, dict)), [])
    assert {key.removesuffix(".sha256") for key in listed} == roles
    assert roles <= {role_of(key) for key in KEYS}


RECIPE = ROOT / "data/shapes/recipe"
WORLD = YAML(typ="safe").load((RECIPE / "dvc.yaml").read_text())["stages"]
WORLD |= YAML(typ="safe").load((ROOT / "data/shapes/dvc.yaml").read_text())["stages"]
MODULES = {"painter": "recipe.base", "refined": "recipe.base", "coco": "world.corpora"}
MODULES |= {
    "flow_painter": "recipe.flow",
    "flow_refined": "recipe.flow",
    "flow_base": "recipe.flow",
    "flow_release": "recipe.release",
    "captioner_release": "recipe.release",
    "vlm_begun": "recipe.vlm",
}
MODULES |= {"captioner_medium": "recipe.captioner", "captioner_weak": "recipe.captioner"}
"""Stages of the world that are not made by the module of their name."""


@pytest.mark.parametrize("name", WORLD)
def test_deps_of_the_world_cover_every_module(name: str) -> None:
    imported = project_imports(f"comat.shapes.{MODULES.get(name, f'recipe.{name}')}")
    if "-m comat.shapes.recipe " in WORLD[name]["cmd"]:
        imported.add("comat/shapes/recipe/__main__.py")
    folder = ROOT if name == "coco" else RECIPE
    deps = [os.path.relpath((folder / dep).resolve(), ROOT) for dep in WORLD[name]["deps"]]
    if "comat/shapes/recipe/tokenizers.py" in deps:  # its tokenizers are made by __main__
        imported.add("comat/shapes/recipe/tokenizers.py")
    covered(deps, imported)


def test_dvc_yaml_reads_as_the_pipeline() -> None:
    assert len((ROOT / "dvc.yaml").read_text().splitlines()) <= 300


Edges = set[tuple[str, str]]


def pipeline() -> Edges:
    """Stage → the stages that read files below its outs, but for `models`, which is read by parameters."""
    outs = {out if isinstance(out, str) else next(iter(out)): name for name in STAGES for out in STAGES[name]["outs"]}
    reads = [(dep, name) for name in STAGES for dep in STAGES[name]["deps"]]
    return {(outs[out], name) for dep, name in reads for out in outs if f"{dep}/".startswith(f"{out}/")}


def drawn(page: str) -> tuple[Edges, Edges]:
    """The full and the dotted arrows of the Mermaid picture in a page, chains taken apart."""
    picture = re.search(r"```mermaid\nflowchart (?:LR|TD)\n(.*?)```", (ROOT / page).read_text(), re.DOTALL)
    assert picture
    full, dotted = set(), set()
    for line in picture[1].splitlines():
        bare = re.sub(r'\(?\["[^"]*"\]\)?', "", line).replace("-- LoRA -->", "-->")
        assert re.fullmatch(r" {4}\w+( (-->|-\.->) \w+)+", bare), line  # else the picture may not be Mermaid's
        names, arrows = re.findall(r"\w+", bare), re.findall(r"-->|-\.->", bare)
        for arrow, edge in zip(arrows, pairwise(names), strict=True):
            (full if arrow == "-->" else dotted).add(edge)
    return full, dotted


def behind(edges: Edges, name: str) -> set[str]:
    """Every stage that is reached from one."""
    near = {b for a, b in edges if a == name}
    return near.union(*(behind(edges, one) for one in near))


def test_the_readme_draws_the_pipeline() -> None:
    """Every stage, and every arrow that does not follow from others; those of `prompt_embeddings` lead to most."""
    edges = {edge for edge in pipeline() if edge[0] != "prompt_embeddings"}
    needed = {(a, b) for a, b in edges if not any(b in behind(edges, c) for x, c in edges if x == a)}
    full, dotted = drawn("README.md")
    assert full == needed
    assert dotted == {("prompt_embeddings", "readers"), ("models", "loaders")}
    assert {name for edge in full | dotted for name in edge} == {*STAGES, "readers", "loaders"}


def test_the_way_of_a_prompt_is_that_of_the_pipeline() -> None:
    edges, (full, dotted) = pipeline(), drawn("docs/architecture.md")
    assert {edge for edge in full if {*edge} <= {*STAGES}} <= edges and not dotted
    assert {name for edge in full for name in edge} - {*STAGES} == {"lists", "photos", "report"}


def test_what_is_known_before_training_is_said_before_it() -> None:
    """The plan of `dvc repro`: prompts that are not held out, or not to be drawn, stop it before `train`."""
    from dvc.repo import Repo
    from dvc.repo.reproduce import plan_repro

    planned = [stage.addressing for stage in plan_repro(Repo(ROOT).index.graph)]
    assert planned.index("prompts") < planned.index("base_samples") < planned.index("train")


def test_the_table_of_experiments_has_at_most_40_columns() -> None:
    """Of the columns that DVC makes of params.yaml and the committed metrics those that `make experiments` keeps."""
    makefile = (ROOT / "Makefile").read_text()
    kept = re.search(r"^COLUMNS := (.*)$", makefile, re.MULTILINE)
    assert kept and "dvc exp show --drop '.*' --keep '$(COLUMNS)'" in makefile
    command = ["dvc", "exp", "show", "--csv", "--drop", ".*", "--keep", kept[1].replace("$$", "$"), "--num", "1"]
    shown = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    columns = shown.splitlines()[0].split(",")
    assert len(columns) <= 40
    assert {"Experiment", "oracle.total.gain", "frechet.ratio", "seed", "lambda_adv", "train_steps"} <= {*columns}


def test_the_world_s_recipe_is_not_part_of_the_pipeline() -> None:
    """Its stages, never run in a clone, would make `dvc status` report changes for ever."""
    from dvc.repo import Repo

    assert {stage.addressing for stage in Repo(ROOT).index.stages} == {*STAGES, "data/shapes/dvc.yaml:coco"}
