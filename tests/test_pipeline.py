"""dvc.yaml says what the stages really read."""

from __future__ import annotations

import pytest
from ruamel.yaml import YAML

from comat.params import Params
from tests.imports import ROOT, project_imports

STAGES = YAML(typ="safe").load((ROOT / "dvc.yaml").read_text())["stages"]


@pytest.mark.parametrize("name", STAGES)
def test_deps_hold_every_module_that_the_stage_imports(name: str) -> None:
    listed = {dep for dep in STAGES[name]["deps"] if dep.endswith(".py")}
    assert listed == project_imports(f"stages.{name}")


@pytest.mark.parametrize("name", STAGES)
def test_params_exist(name: str) -> None:
    for key in STAGES[name]["params"]:
        section, _, field = key.partition(".")
        kind = Params.model_fields[section].annotation
        assert not field or field in kind.model_fields


def test_every_parameter_belongs_to_a_stage() -> None:
    """`device` alone changes no result."""
    used = {key.partition(".")[0] for stage in STAGES.values() for key in stage["params"]}
    assert set(Params.model_fields) - used == {"device"}


def test_a_lambda_reruns_train_samples_and_evaluate_only() -> None:
    assert [name for name in STAGES if "lambda_adv" in STAGES[name]["params"]] == ["train"]


WORLD = YAML(typ="safe").load((ROOT / "data/shapes/dvc.yaml").read_text())["stages"]
MODULES = {"painter": "recipe.base", "refined": "recipe.base", "coco": "corpora"}
"""Stages of the world that are not made by the module of their name."""


@pytest.mark.parametrize("name", WORLD)
def test_deps_of_the_world_hold_every_module(name: str) -> None:
    listed = {dep for dep in WORLD[name]["deps"] if dep.endswith(".py")}
    imported = project_imports(f"comat.shapes.{MODULES.get(name, f'recipe.{name}')}")
    shared = {f"comat/shapes/recipe/{module}.py" for module in ("__main__", "tokenizers")}
    assert imported <= listed <= imported | shared
