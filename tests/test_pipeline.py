"""dvc.yaml says what the stages really read."""

from __future__ import annotations

import ast

import pytest
from ruamel.yaml import YAML

from comat.models.names import named_models
from comat.params import Params, load
from tests.imports import ROOT, project_imports

STAGES = YAML(typ="safe").load((ROOT / "dvc.yaml").read_text())["stages"]
LOCK = "data/models/models.lock.json"


def keys(name: str) -> set[str]:
    """The keys of params.yaml that a stage depends on."""
    return {key for key in STAGES[name]["params"] if isinstance(key, str)}


OUTS = ("data/train", "data/samples")


@pytest.mark.parametrize("name", STAGES)
def test_deps_hold_every_module_that_the_stage_imports(name: str) -> None:
    listed = {dep for dep in STAGES[name]["deps"] if dep.endswith(".py")}
    assert listed == project_imports(f"stages.{name}")


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
    assert roles <= {model.role for model in named_models(load(ROOT / "params.yaml"))}


WORLD = YAML(typ="safe").load((ROOT / "data/shapes/dvc.yaml").read_text())["stages"]
MODULES = {"painter": "recipe.base", "refined": "recipe.base", "coco": "corpora"}
MODULES |= {"captioner_medium": "recipe.captioner", "captioner_weak": "recipe.captioner"}
"""Stages of the world that are not made by the module of their name."""


@pytest.mark.parametrize("name", WORLD)
def test_deps_of_the_world_hold_every_module(name: str) -> None:
    listed = {dep for dep in WORLD[name]["deps"] if dep.endswith(".py")}
    imported = project_imports(f"comat.shapes.{MODULES.get(name, f'recipe.{name}')}")
    shared = {f"comat/shapes/recipe/{module}.py" for module in ("__main__", "tokenizers")}
    assert imported <= listed <= imported | shared
