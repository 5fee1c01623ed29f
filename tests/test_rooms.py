"""The house: each room stands on rooms below it only, and the package shows what a newcomer should see first."""

from __future__ import annotations

import ast
from graphlib import TopologicalSorter

import pytest

from tests.imports import ROOT, room_imports

METHOD = [
    "attribute_concentration",
    "batch",
    "concept_activation",
    "denoising",
    "fidelity_preservation",
    "mixed_latents",
    "replay",
    "step",
]


def test_no_room_stands_on_one_that_stands_on_it() -> None:
    TopologicalSorter(room_imports()).prepare()  # raises CycleError with the circle


@pytest.mark.parametrize("room", ["judges", "samples", "method", "training", "diffusion", "storage", "running"])
def test_what_makes_results_does_not_stand_on_what_reports_them(room: str) -> None:
    rooms, todo, seen = room_imports(), [f"comat/{room}"], set()
    while todo:
        found = rooms[todo.pop()] - seen
        seen |= found
        todo += found
    assert not seen & {"comat/evaluation", "comat/reporting", "comat/preference", "comat/estimate", "comat/cli.py"}


def test_the_shapes_world_needs_nothing_of_the_rest() -> None:
    assert room_imports()["comat/shapes/world"] == set()


def test_the_package_shows_at_most_25_names() -> None:
    assert len([p for p in (ROOT / "comat").iterdir() if p.name != "__pycache__"]) <= 25


def test_the_method_stands_in_one_room() -> None:
    assert sorted(p.stem for p in (ROOT / "comat/method").glob("[!_]*.py")) == METHOD


def test_every_room_says_what_it_is() -> None:
    for init in (ROOT / "comat").rglob("__init__.py"):
        assert ast.get_docstring(ast.parse(init.read_text())), f"{init} has no docstring"


WHOLE_RUNS = (
    "comat/cli.py",
    "comat/corpora/own/",
    "comat/estimate/",
    "comat/finished/",
    "comat/models/",
    "comat/training/trainer.py",
)
"""What starts, writes or looks at the parameters of a whole run, or says which of them name models."""


def test_params_as_a_whole_go_no_further_than_the_stages_and_the_trainer() -> None:
    takers = set()
    for source in (ROOT / "comat").rglob("*.py"):
        name = source.relative_to(ROOT).as_posix()
        for node in ast.walk(ast.parse(source.read_text())):
            if (
                isinstance(node, ast.arg)
                and node.annotation
                and ast.unparse(node.annotation).split(" | ")[0] == "Params"
            ):
                takers.add(name)
    assert [name for name in sorted(takers) if not name.startswith(WHOLE_RUNS)] == []
