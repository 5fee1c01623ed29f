"""The warm-up: all weights, or LoRA that is in the weights at the end; killed, it goes on where it was."""

from __future__ import annotations

import os
import shutil
import signal
from pathlib import Path

import pytest
import torch
from diffusers import UNet2DConditionModel
from ruamel.yaml import YAML
from torch.optim.optimizer import register_optimizer_step_post_hook

from comat.diffusion.backbones import load_base
from comat.diffusion.load import PASSED_THROUGH, load_backbone
from comat.errors import UserError, main_guard
from comat.params import load
from comat.randomness import generator
from comat.training.warmup import warm_up, warmup_loss
from tests.conftest import run


def setting(make_params, lora_rank: int, steps: int):
    params = make_params()
    section = params.warmup.model_copy(
        update={"steps": steps, "lora_rank": lora_rank, "batch_size": 2, "learning_rate": 1e-2}
    )
    latents = torch.randn(3, 4, 8, 8, generator=generator(0, "latents"))
    return params.model_copy(update={"warmup": section}), latents, ["a red ball", "a cube", "two stars"]


@pytest.mark.parametrize("lora_rank", [0, 2])
def test_it_learns_and_leaves_a_plain_unet(make_params, tmp_path: Path, lora_rank: int) -> None:
    params, latents, prompts = setting(make_params, lora_rank, 40)
    backbone = load_base(params.base_model)
    before = {name: value.clone() for name, value in backbone.denoiser.state_dict().items()}
    embeddings = backbone.encode_prompts(prompts)
    start = warmup_loss(backbone, latents, embeddings, generator(0, "judge"), 0.1)
    warm_up(backbone, params.warmup, params.seed, latents, prompts, tmp_path)
    assert warmup_loss(backbone, latents, embeddings, generator(0, "judge"), 0.1) < start
    backbone.denoiser.save_pretrained(tmp_path / "unet")
    loaded, report = UNet2DConditionModel.from_pretrained(tmp_path / "unet", output_loading_info=True)
    assert not any(report.values())
    changed = {name for name, value in loaded.state_dict().items() if not torch.equal(value, before[name])}
    projections = {n for n in before if n.endswith(tuple(f"{p}.weight" for p in ("to_q", "to_k", "to_v", "to_out.0")))}
    if lora_rank:
        assert changed == projections
    else:
        assert changed > projections
    assert not any(weight.requires_grad for weight in backbone.denoiser.parameters())


@pytest.mark.parametrize("lora_rank", [0, 2])
def test_interrupted_it_ends_with_the_same_weights(make_params, tmp_path: Path, lora_rank: int) -> None:
    results = []
    for name, stops in (("whole", [30]), ("interrupted", [25 + 2, 30])):
        (tmp_path / name).mkdir()
        for steps in stops:  # the first run leaves the state of step 25 behind
            params, latents, prompts = setting(make_params, lora_rank, steps)
            backbone = load_base(params.base_model)
            warm_up(backbone, params.warmup, params.seed, latents, prompts, tmp_path / name)
        results.append(backbone.denoiser.state_dict())
    assert all(torch.equal(results[0][name], results[1][name]) for name in results[0])


def test_a_signal_saves_the_step_that_it_met(make_params, tmp_path: Path) -> None:
    """In the fourth of seven steps, long before the first checkpoint."""
    params, latents, prompts = setting(make_params, 2, 7)
    whole = load_base(params.base_model)
    (tmp_path / "whole").mkdir()
    warm_up(whole, params.warmup, params.seed, latents, prompts, tmp_path / "whole")
    taken: list[int] = []

    def interrupt(*_: object) -> None:
        taken.append(1)
        if len(taken) == 4:
            os.kill(os.getpid(), signal.SIGTERM)

    @main_guard
    def command() -> None:
        warm_up(load_base(params.base_model), params.warmup, params.seed, latents, prompts, tmp_path)

    hook = register_optimizer_step_post_hook(interrupt)
    with pytest.raises(SystemExit) as stop:
        command()
    assert stop.value.code == 143 and len(taken) == 4
    again = load_base(params.base_model)
    warm_up(again, params.warmup, params.seed, latents, prompts, tmp_path)
    hook.remove()
    assert len(taken) == 7
    state = whole.denoiser.state_dict()
    assert all(torch.equal(value, state[name]) for name, value in again.denoiser.state_dict().items())


def test_dropped_prompts_are_not_read(make_params) -> None:
    """Of all prompts dropped the loss is that of the empty one, whatever they say; of none it is not."""
    backbone = load_base(make_params().base_model)
    z = torch.randn(3, 4, 8, 8, generator=generator(0, "latents"))
    said = [*(backbone.encode_prompts([text] * 3) for text in ("a red ball", "two stars")), backbone.null.repeat(3)]
    dropped, kept = (
        [float(warmup_loss(backbone, z, one, generator(0, "judge"), share)) for one in said] for share in (1.0, 0.0)
    )
    assert dropped == [kept[2]] * 3 and kept[0] != kept[1]


@pytest.mark.parametrize("other", [{"prompt_dropout": 1.0}, {"weight_decay": 0.5}, {"max_grad_norm": 1e-9}])
def test_each_parameter_of_the_warm_up_is_read(make_params, tmp_path: Path, other: dict[str, float]) -> None:
    found = []
    for name, update in (("as", {}), ("other", other)):
        (tmp_path / name).mkdir()
        params, latents, prompts = setting(make_params, 0, 2)
        section = params.warmup.model_copy(update=update)
        backbone = load_base(params.base_model)
        warm_up(backbone, section, params.seed, latents, prompts, tmp_path / name)
        found.append(torch.cat([weight.flatten() for weight in backbone.denoiser.parameters()]))
    assert (found[0] - found[1]).norm() > 1e-3 * (found[0] - before(params.base_model)).norm()


def before(model: str) -> torch.Tensor:
    return torch.cat([weight.flatten() for weight in load_base(model).denoiser.parameters()])


def test_no_steps_pass_the_base_through_uncopied(broken: Path) -> None:
    """A note stands in the place of the UNet, and what follows draws by the base model's own."""
    values = YAML(typ="safe").load(broken / "params.yaml")
    values["warmup"]["steps"] = 0
    YAML().dump(values, broken / "params.yaml")
    run("warmup_images", broken)
    run("warmup", broken)
    folder = broken / "data/warmup"
    assert [path.name for path in folder.rglob("*")] == [PASSED_THROUGH]
    params = load(broken / "params.yaml")
    drawn, base = load_backbone(params, folder).denoiser, load_backbone(params).denoiser
    assert all(torch.equal(a, b) for a, b in zip(drawn.parameters(), base.parameters(), strict=True))
    (folder / PASSED_THROUGH).unlink()
    with pytest.raises(UserError, match="expected one folder transformer or unet"):
        load_backbone(params, folder)


@pytest.mark.parametrize("vae", [None, "sd15/vae"])
def test_stages_of_latents_read_no_weight_of_the_autoencoder(
    project: Path, tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, vae: str | None
) -> None:
    """Whether it is the base model's own or another: what they write is the same."""
    root = tmp_path / "project"
    shutil.copytree(project, root)
    if vae:
        values = YAML(typ="safe").load(root / "params.yaml")
        YAML().dump(values | {"vae": str(tiny / vae)}, root / "params.yaml")
        run("models", root)

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("its weights are read")

    monkeypatch.setattr("comat.diffusion.backbones.load_vae", refuse)
    for stage in ("warmup", "reference_latents"):
        run(stage, root)
        files = [path.relative_to(project) for path in (project / "data" / stage).rglob("*.safetensors")]
        assert files
        for file in files:
            assert (root / file).read_bytes() == (project / file).read_bytes(), file
    with pytest.raises(AssertionError, match="its weights are read"):
        run("base_samples", root)
