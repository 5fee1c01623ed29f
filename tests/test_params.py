"""params.yaml: what is wrong is named, in one line, before anything is loaded."""

from __future__ import annotations

import shutil
import time
from pathlib import Path

import pytest
from dvc.utils.hydra import apply_overrides
from ruamel.yaml import YAML

from comat.models.names import KEYS, named_models, role_of, with_revisions
from comat.params import Params, load
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
        ({"lamda_adv": 1}, r"lamda_adv \(= 1\) is no parameter; did you mean lambda_adv\?"),
        ({"train__checkpoints_every": 1}, r"did you mean train\.checkpoint_every\?"),
        ({"checkpoint_every": 1}, r"did you mean train\.checkpoint_every\?"),
        ({"lambda\x1b[31m": "x" * 900}, r"^[^\x1b]*lambda\\x1b\[31m \(= 'x{27}\.\.\.x{28}'\) is no parameter"),
        ({"vae": ""}, "vae is '': String should have at least 1 character"),
        ({"base_revision": "  "}, "base_revision is '  ': expected text that can be printed"),
        ({"captioner_model": "a\x00b"}, r"captioner_model is 'a\\x00b': expected text that can be printed"),
        ({"train_steps": 10**12}, "train_steps is 1000000000000: Input should be less than or equal to 1000000000"),
        ({"seed": list(range(50))}, r"seed is \[0, 1, 2, 3, 4, 5, \.\.\.\]: Input should be a valid integer"),
        ({"warmup_images__count": 0}, r"warmup\.steps is 100, but warmup_images\.count is 0"),
        (
            {"concept_activation": False, "attribute_steps": 0, "lambda_adv": 0.0},
            "lambda_adv and denoising_weight: nothing would be learned",
        ),
        ({"sampling_steps": "many"}, "sampling_steps is 'many': Input should be a valid integer"),
        ({"sampling_steps": 5000}, "sampling_steps is 5000: Input should be less than or equal to 1000"),
        ({"learning_rate": float("inf")}, "learning_rate is inf: Input should be a finite number"),
        ({"device": "gpu0"}, "device is 'gpu0': String should match pattern"),
        ({"base_model": ""}, "base_model is '': String should have at least 1 character"),
        ({"prompts__sources": []}, r"prompts\.sources is \[\]: List should have at least 1 item"),
        ({"alpha": -1.0}, "alpha is -1.0: Input should be greater than or equal to 0"),
        ({"scheduler": "heun"}, "scheduler is 'heun': Input should be 'model', 'ddpm', 'ddim' or 'euler'"),
        ({"grad_steps": 21}, r"grad_steps is 21: expected at most sampling_steps \(20\)"),
        ({"attribute_steps": 6}, r"attribute_steps is 6: expected at most grad_steps \(5\)"),
        ({"segmenter": "grounded_sam_hf"}, "grounded_sam is null: expected its section, since segmenter is grounded_"),
        (
            {"segmenter": "fastsam"},
            "segmenter is 'fastsam': Input should be 'clipseg', 'grounded_sam', 'grounded_sam_hf' or 'sam3'",
        ),
        (
            {"image_batch": 0, "denoising_weight": 1.0},
            "image_batch is 0: expected 1 or more .*, since denoising_weight is 1$",
        ),
        ({"image_batch": 0, "attribute_images": "real"}, "image_batch is 0: .* since attribute_images is real"),
        ({"denoising_weight": -1.0}, "denoising_weight is -1.0: Input should be greater than or equal to 0"),
        ({"attribute_images": "both"}, "attribute_images is 'both': Input should be 'generated' or 'real'"),
        ({"mixed_latent_t1": 700}, r"mixed_latent_t1 is 700: expected at most mixed_latent_t2 \(600\)"),
    ],
)
def test_bad_values_are_named(tmp_path: Path, changes: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        load(changed(tmp_path, **changes))
    assert "\n" not in str(caught.value)


def test_the_guards_prompts_leave_some_to_train_on(tmp_path: Path) -> None:
    values = YAML(typ="safe").load((ROOT / "params.yaml").read_text())
    values["train"]["guard"] |= {"every": 5, "prompts": 8}
    path = tmp_path / "params.yaml"
    for count, fits in ((8, False), (9, True), (0, True)):
        values["reference_latents"]["count"] = count
        YAML().dump(values, path)
        if fits:
            load(path)
            continue
        with pytest.raises(ValueError, match=r"reference_latents.count is 8: expected more than train.guard.prompts"):
            load(path)


BOMB = "a0: &a0 [x, x]\n" + "".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]\n" for n in range(1, 9))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (BOMB, "more than 100,000 values, aliases written out"),
        (BOMB.replace("[", "{<<: [", 9).replace("]", "]}"), "more than 100,000 values|not readable as YAML"),
        ("a: &a [*a]", "the value of 'a' holds itself"),
        ("a: " + "[" * 50_000, "nested deeper than 32 levels"),
        ("seed: " + "9" * 5000, "a value of 5000 characters"),
        ("seed: 2024-13-45", "not readable as YAML: month must be in"),
        ("seed: !!float x", "not readable as YAML: could not convert"),
        ("seed: !!python/object/apply:os.system [ls]", "could not determine a constructor"),
    ],
)
def test_text_that_would_grow_without_bound_ends_at_once(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "params.yaml"
    path.write_text(text)
    before = time.monotonic()
    with pytest.raises(ValueError, match=message) as caught:
        load(path)
    assert time.monotonic() - before < 20 and len(str(caught.value)) < 700 and "\n" not in str(caught.value)


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


TABLE_8 = {
    "sd15": {"learning_rate": 5e-5, "lambda_adv": 1.0, "global_batch": 4 * 8},
    "sdxl": {"learning_rate": 2e-5, "lambda_adv": 0.5, "global_batch": 6 * 8},
    "both": {
        "adam_beta1": 0.9,
        "adam_beta2": 0.999,
        "max_grad_norm": 0.1,
        "learning_rate_schedule": "constant",
        "discriminator_learning_rate": 5e-5,
        "discriminator_adam_beta1": 0.0,
        "discriminator_adam_beta2": 0.999,
        "discriminator_max_grad_norm": 1.0,
        "alpha": 1e-3,
        "beta": 5e-5,
        "grad_steps": 5,
        "attribute_steps": 2,
        "sampling_steps": 50,
        "scheduler": "ddpm",
        "lora_rank": 128,
        "guidance_scale": 7.5,
        "resolution": 512,
        "train_steps": 2000,
        "image_batch": 2 * 8,
    },
}


@pytest.mark.parametrize("preset", ["sd15", "sdxl", "sdxl-24gb"])
def test_presets_are_table_8(preset: str) -> None:
    values = load(ROOT / "presets" / f"{preset}.yaml").model_dump()
    expected = {**TABLE_8["both"], **TABLE_8[preset.partition("-")[0]]}
    assert {key: values[key] for key in expected} == expected


def test_presets_pin_their_models() -> None:
    for preset in ("sd15", "sdxl", "sdxl-24gb"):
        params = load(ROOT / "presets" / f"{preset}.yaml")
        for revision in (params.base_revision, params.captioner_revision, params.discriminator_revision):
            assert len(revision) == 40
        assert (params.vae is None) == (params.vae_revision is None)


@pytest.mark.parametrize("preset", ["shapes", "sd15", "sdxl"])
def test_every_model_has_a_role_and_a_revision_of_its_own(preset: str) -> None:
    params = load(ROOT / "presets" / f"{preset}.yaml")
    assert len({role_of(key) for key in KEYS}) == len(KEYS)
    named = named_models(params)
    assert [model.key for model in named] == [key for key in KEYS if key in {model.key for model in named}]
    pinned = with_revisions(params, {model.key: f"commit of {model.key}" for model in named})
    again = named_models(pinned)
    assert [model.revision for model in again] == [f"commit of {model.key}" for model in named]
    assert [model.name for model in again] == [model.name for model in named]


def test_weights_of_the_packages_are_single_files() -> None:
    """Of groundingdino-py and segment-anything: one .pth each, and what the text encoder has beside its weights."""
    values = load(ROOT / "presets/sdxl.yaml").model_dump()
    files = {"detector": "d.pth", "detector_config": "c.py", "sam": "s.pth"}
    values["segmenter"] = "grounded_sam"
    values["grounded_sam"]["files"] = files | {"text_encoder": "bert", "text_encoder_revision": None}
    used = {model.role: model.files for model in named_models(Params.model_validate(values))}
    assert used["segmenter_model"] == ("d.pth",) and used["sam_model"] == ("s.pth",)
    assert used["text_encoder"][0] == "config.json" and not used["captioner_model"]


@pytest.mark.parametrize(
    "path", [ROOT / "params.yaml", *sorted((ROOT / "presets").glob("*.yaml"))], ids=lambda p: p.stem
)
def test_a_sweep_changes_one_line(path: Path, tmp_path: Path) -> None:
    """`dvc exp run -S` writes the whole file anew: of flow style, quotes and null it has its own forms."""
    own = tmp_path / "params.yaml"
    shutil.copy(path, own)
    apply_overrides(own, ["seed=7", "train.guard.every=3"])
    before, after = (file.read_text().splitlines() for file in (path, own))
    assert len(before) == len(after)
    changed = [(a.split("#")[0].split(), b.split("#")[0].split()) for a, b in zip(before, after, strict=True) if a != b]
    assert changed == [(["seed:", "0"], ["seed:", "7"]), (["every:", "0"], ["every:", "3"])]
