"""params.yaml: what is wrong is named, in one line, before anything is loaded."""

from __future__ import annotations

from pathlib import Path

import pytest
from ruamel.yaml import YAML

from comat.params import load
from tests.conftest import ROOT


def changed(tmp_path: Path, **changes: object) -> Path:
    yaml = YAML()
    values = yaml.load((ROOT / "params.yaml").read_text())
    for key, value in changes.items():
        section, _, name = key.rpartition("__")
        (values[section] if section else values)[name] = value
    path = tmp_path / "params.yaml"
    yaml.dump(values, path)
    return path


def test_the_committed_parameters_are_the_shapes_preset() -> None:
    assert (ROOT / "params.yaml").read_text() == (ROOT / "presets" / "shapes.yaml").read_text()
    for preset in (ROOT / "presets").glob("*.yaml"):
        load(preset)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"lambda": 1}, r"lambda \(= 1\) is no parameter"),
        ({"train__chunk": 1}, r"train\.chunk \(= 1\) is no parameter"),
        ({"sampling_steps": "many"}, "sampling_steps is 'many': Input should be a valid integer"),
        ({"sampling_steps": 5000}, "sampling_steps is 5000: Input should be less than or equal to 1000"),
        ({"learning_rate": float("inf")}, "learning_rate is inf: Input should be a finite number"),
        ({"device": "gpu0"}, "device is 'gpu0': String should match pattern"),
        ({"base_model": ""}, "base_model is '': String should have at least 1 character"),
        ({"prompts__sources": []}, r"prompts\.sources is \[\]: List should have at least 1 item"),
        ({"alpha": -1.0}, "alpha is -1.0: Input should be greater than or equal to 0"),
        ({"scheduler": "heun"}, "scheduler is 'heun': Input should be 'ddpm', 'ddim' or 'euler'"),
        ({"grad_steps": 21}, r"grad_steps is 21: expected at most sampling_steps \(20\)"),
        ({"attribute_steps": 6}, r"attribute_steps is 6: expected at most grad_steps \(5\)"),
        ({"mixed_latent_t1": 700}, r"mixed_latent_t1 is 700: expected at most mixed_latent_t2 \(600\)"),
    ],
)
def test_bad_values_are_named(tmp_path: Path, changes: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        load(changed(tmp_path, **changes))
    assert "\n" not in str(caught.value)


def test_small_numbers_as_dvc_writes_them(tmp_path: Path) -> None:
    path = tmp_path / "params.yaml"
    path.write_text((ROOT / "params.yaml").read_text().replace("beta: 5.0e-5", "beta: 1e-05"))
    assert load(path).beta == 1e-5


def test_a_missing_key_and_a_missing_file_are_named(tmp_path: Path) -> None:
    path = tmp_path / "params.yaml"
    with pytest.raises(FileNotFoundError, match="no such parameter file"):
        load(path)
    path.write_text("seed: 0\n")
    with pytest.raises(ValueError, match="device is missing"):
        load(path)
    path.write_text("seed: [\n")
    with pytest.raises(ValueError, match="not readable as YAML"):
        load(path)


def test_every_model_has_a_revision_of_its_own() -> None:
    params = load(ROOT / "params.yaml")
    models = params.models()
    assert len({model.role for model in models}) == len(models)
    pinned = params.with_revisions({model.key: f"commit of {model.key}" for model in models})
    assert [model.revision for model in pinned.models()] == [f"commit of {model.key}" for model in models]
    assert [model.name for model in pinned.models()] == [model.name for model in models]
