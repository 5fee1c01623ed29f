"""`comat export`: names that other programs read, one LoRA for the stock base, a merged pipeline."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from diffusers import (
    AutoPipelineForText2Image,
    DDPMScheduler,
    DiffusionPipeline,
    StableDiffusionPipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
)
from peft.utils import get_peft_model_state_dict
from ruamel.yaml import YAML
from safetensors import safe_open
from torch import Tensor, nn
from typer.testing import CliRunner

from comat.cli import app
from comat.diffusion.backbones import load_base
from comat.diffusion.lora import add_lora, export_lora, lora_state
from comat.errors import UserError
from comat.estimate.architectures import build_unet, meta
from comat.finished.export import export, said_of
from comat.finished.kohya import check_named, kohya_state, original_name
from comat.finished.low_rank import low_rank
from comat.finished.weights import FinishedRun, Lora, Weights, finished_run
from comat.models.families import FAMILIES
from comat.models.names import ModelName
from comat.params import Params, load
from comat.randomness import generator
from comat.storage.tables import read_safetensors
from tests import tiny_families
from tests.test_publish import write_lock
from tests.test_real_architectures import PIPELINES, backbone

XL = {"layers_per_block": 2, "up_block_types": ["CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"]}


@pytest.mark.parametrize(
    ("layer", "name"),
    [
        ("down_blocks.1.attentions.0.proj_in", "input_blocks.4.1.proj_in"),
        ("down_blocks.2.attentions.1.transformer_blocks.9.attn2.to_out.0",
         "input_blocks.8.1.transformer_blocks.9.attn2.to_out.0"),
        ("down_blocks.0.resnets.1.conv2", "input_blocks.2.0.out_layers.3"),
        ("down_blocks.0.downsamplers.0.conv", "input_blocks.3.0.op"),
        ("mid_block.attentions.0.proj_out", "middle_block.1.proj_out"),
        ("mid_block.resnets.1.time_emb_proj", "middle_block.2.emb_layers.1"),
        ("up_blocks.0.attentions.2.transformer_blocks.0.ff.net.0.proj",
         "output_blocks.2.1.transformer_blocks.0.ff.net.0.proj"),
        ("up_blocks.1.upsamplers.0.conv", "output_blocks.5.2.conv"),
        ("up_blocks.2.resnets.0.conv_shortcut", "output_blocks.6.0.skip_connection"),
        ("add_embedding.linear_2", "label_emb.0.2"),
        ("conv_out", "out.2"),
    ],
)  # fmt: skip
def test_names_of_the_original_code(layer: str, name: str) -> None:
    """SDXL in hand: blocks of 2 layers and what halves the size, so down block 1 begins at 1 + 3, up block 1 at 3."""
    assert original_name(layer, XL) == name


def test_an_upsampler_stands_behind_what_its_block_has() -> None:
    """Of SD 1.5 the first block on the way up has no attention: resnet, upsampler."""
    own = {"layers_per_block": 2, "up_block_types": ["UpBlock2D", "CrossAttnUpBlock2D"]}
    assert original_name("up_blocks.0.upsamplers.0.conv", own) == "output_blocks.2.1.conv"
    with pytest.raises(UserError, match="nowhere has no name in the original code"):
        original_name("nowhere", own)


@pytest.mark.parametrize(("name", "modules"), [("sd15", 128), ("sdxl", 560)])
def test_every_layer_of_the_real_models_has_a_name_that_leads_back(name: str, modules: int) -> None:
    """Attention alone, as CoMat trains it: diffusers' reader of kohya's files finds each layer again, at scale 1."""
    model = backbone(name)
    add_lora(model, 4, generator(0, "lora"))
    pairs = lora_state(model.denoiser)
    lora = {
        key.removesuffix(".lora_A.weight"): Lora(value, pairs[key.replace("lora_A", "lora_B")])
        for key, value in pairs.items()
        if "lora_A" in key
    }
    state, metadata = kohya_state(lora, model.denoiser.config, model.family)
    assert len(lora) == modules and len(state) == 3 * modules and metadata["ss_network_dim"] == "4"
    assert any("input_blocks" in key for key in state) == (name == "sdxl")
    options = {"unet_config": model.denoiser.config} if name == "sdxl" else {}
    found, alphas = PIPELINES[name].lora_state_dict(state, **options)
    assert {value for value in alphas.values()} == {4.0} and len(alphas) == modules

    other: UNet2DConditionModel = meta(build_unet, name)
    other.load_lora_adapter(found, network_alphas=alphas, prefix="unet", adapter_name="default", low_cpu_mem_usage=True)
    assert set(lora_state(other)) == set(lora_state(model.denoiser))


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.backbone)
def test_transformers_have_no_such_names(family) -> None:
    if family.denoiser == "unet":
        check_named(family, family.pipelines[0])
    else:
        fused = family.pipelines[0] in ("StableDiffusion3Pipeline", "FluxPipeline")
        why = "whose q, k and v are one matrix" if fused else "of which CoMat knows no names"
        message = rf"this base is a {family.pipelines[0]}, {why}.* give --format diffusers, or merged"
        with pytest.raises(UserError, match=message):
            check_named(family, family.pipelines[0])


def test_the_best_lora_of_a_matrix_a_kernel_and_what_has_none() -> None:
    """diag(3, 2, 1) at rank 1 keeps the 3: left out is sqrt(4 + 1), of sqrt(14). A vector of norm 2 is left out whole.

    A kernel of one value 5 is of rank 1. So in all sqrt(5 + 4) of sqrt(14 + 4 + 25).
    """
    kernel = torch.zeros(2, 3, 3, 3)
    kernel[1, 2, 0, 1] = 5.0
    changes = {"a.weight": torch.diag(torch.tensor([3.0, 2, 1])), "n.bias": torch.tensor([0.0, 2]), "c.weight": kernel}
    made = low_rank(changes.items(), 1, torch.device("cpu"))
    torch.testing.assert_close(made.lora["a"].change, torch.diag(torch.tensor([3.0, 0, 0])))
    assert made.lora["c"].down.shape == (1, 3, 3, 3) and made.lora["c"].up.shape == (2, 1, 1, 1)
    assert made.errors == pytest.approx({"a.weight": (5 / 14) ** 0.5, "n.bias": 1.0, "c.weight": 0.0}, abs=1e-6)
    assert made.error == pytest.approx((9 / 43) ** 0.5)
    padded = low_rank(changes.items(), 5, torch.device("cpu"))
    assert padded.lora["a"].down.shape == (5, 3) and padded.error == pytest.approx((4 / 43) ** 0.5)
    assert low_rank([], 4, torch.device("cpu")).error == 0


def test_a_depth_wise_kernel_has_no_place() -> None:
    """Beside a matrix of norm 3 that is of rank 1, a kernel of two channels of norm 4 and a vector of norm 5.

    So 16 + 25 of 9 + 16 + 25 are left out: all that is, and sqrt(41 / 50) = 90.55%.
    """
    kernel = torch.zeros(2, 1, 3, 3)
    kernel[0, 0, 1, 1] = 4.0
    changes = {"a.weight": torch.diag(torch.tensor([3.0, 0])), "c.weight": kernel, "n.weight": torch.tensor([3.0, 4])}
    made = low_rank(changes.items(), 4, torch.device("cpu"))
    assert set(made.lora) == {"a"} and made.depthwise == ["c.weight"]
    assert made.without_place == ["c.weight", "n.weight"]
    assert made.errors == pytest.approx({"a.weight": 0.0, "c.weight": 1.0, "n.weight": 1.0}, abs=1e-6)
    said = list(said_of(made, 4))
    assert said[1].endswith("90.55% in all")
    assert said[2] == (
        "of it 1 biases and norms and 1 kernels of depth-wise convolutions, for which LoRA has no place: 90.55%"
    )
    assert said[4:] == ["    0.00%  a"]
    without = low_rank([("a.weight", torch.eye(1)), ("a.bias", torch.ones(1))], 1, torch.device("cpu"))
    assert list(said_of(without, 1))[2] == "of it 1 biases and norms, for which LoRA has no place: 70.71%"


def trained(params: Params, folder: Path, data: Path, warmed: bool = True) -> FinishedRun:
    """A run on the base in `folder`: every weight changed by its warm-up and every LoRA by CoMat, or nothing by either.

    Changes are drawn from the normal distribution.
    """
    model = load_base(str(folder))
    rng, warm = generator(1, "trained"), folder / model.family.denoiser
    if warmed:
        warm = data / "warmup" / model.family.denoiser
        with torch.no_grad():
            for weight in model.denoiser.parameters():
                weight.add_(0.05 * torch.randn(weight.shape, generator=rng))
        model.denoiser.save_pretrained(warm)
    for weight in add_lora(model, 2, generator(0, "lora")):
        if warmed:
            weight.data.normal_(generator=rng)
    export_lora(model, data / "lora")
    base = ModelName("base_model", str(folder), None)
    return FinishedRun(params, base, folder, model.family, warm, data / "lora")


@pytest.mark.parametrize("name", ["sd3", "flux_dev", "sana", "qwen_image", "z_image"])
def test_one_lora_of_a_transformer_by_the_stock_pipeline(
    make_params, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str
) -> None:
    """At a rank as wide as its layers: those in the file have the tuned weights, all others are the stock base's.

    Of Sana's two blocks a depth-wise convolution each is left out.
    """
    folder = getattr(tiny_families, f"save_{name}")(tmp_path / "base")
    run = trained(make_params(base_model=str(folder)), folder, tmp_path / "data")
    monkeypatch.setattr("comat.finished.export.finished_run", lambda *_: run)
    said = export(run.params, tmp_path / "data", "diffusers", 256, tmp_path / "lora")
    pipeline = DiffusionPipeline.from_pretrained(folder, dtype=torch.float32)
    before = weights_of(pipeline.transformer)
    pipeline.load_lora_weights(tmp_path / "lora")
    pipeline.fuse_lora()
    pipeline.unload_lora_weights()
    after, tuned = weights_of(pipeline.transformer), dict(run.tuned())
    state = read_safetensors(tmp_path / "lora/pytorch_lora_weights.safetensors")
    held = {key.removeprefix("transformer.").replace(".lora_A", "") for key in state if ".lora_A." in key}
    assert 2 * len(held) == len(state)
    matrices = {name for name, value in tuned.items() if name.endswith(".weight") and value.ndim > 1}
    depthwise = {name for name in matrices if name.endswith(".conv_depth.weight")}
    assert held == matrices - depthwise and len(depthwise) == (2 if name == "sana" else 0)
    for weight, value in after.items():
        torch.testing.assert_close(value, (tuned if weight in held else before)[weight], atol=1e-5, rtol=1e-4)
    errors = json.loads((tmp_path / "lora/error.json").read_text())["tensors"]
    assert {weight for weight, error in errors.items() if error == 1} == after.keys() - held
    assert max(errors[weight] for weight in held) < 1e-4
    assert ("and 2 kernels of depth-wise convolutions, for which" in said[2]) == (name == "sana")


def test_there_is_no_lora_of_a_run_that_changed_nothing(
    tiny: Path, make_params, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """No warm-up, and CoMat's LoRA as it was at iteration 0, which without --rank is written, and merged, as it is."""
    params = make_params(base_model=str(tiny / "sd15"))
    run = trained(params, tiny / "sd15", tmp_path / "data", warmed=False)
    monkeypatch.setattr("comat.finished.export.finished_run", lambda *_: run)
    for form in ("diffusers", "kohya"):
        with pytest.raises(UserError, match=r"--rank: training changed no layer of .*sd15 that a LoRA has a"):
            export(params, tmp_path / "data", form, 4, tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["data"]
    assert export(params, tmp_path / "data", "kohya", None, tmp_path / "out") == []
    assert export(params, tmp_path / "data", "merged", None, tmp_path / "whole") == [
        "a whole pipeline in fp32, warm-up and LoRA merged"
    ]


def weights_of(unet: nn.Module) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in unet.named_parameters()}


def test_one_lora_for_the_stock_base_is_the_tuned_model_but_for_its_norms(
    project: Path, params: Params, tmp_path: Path
) -> None:
    """At a rank as wide as the layers the stock pipeline with the LoRA has the weights of warm-up and CoMat."""
    said = export(params, project / "data", "diffusers", 256, tmp_path / "lora")
    assert "rank 256 for the stock base" in said[0] and "for which LoRA has no place" in said[2]
    run = finished_run(params, project / "data")
    pipeline = AutoPipelineForText2Image.from_pretrained(params.base_model, dtype=torch.float32)
    before = weights_of(pipeline.unet)
    pipeline.load_lora_weights(tmp_path / "lora")
    pipeline.fuse_lora()
    pipeline.unload_lora_weights()
    after, tuned = weights_of(pipeline.unet), dict(run.tuned())
    matrices = [name for name, value in tuned.items() if value.ndim > 1]
    moved = [name for name in matrices if not torch.equal(before[name], tuned[name])]
    assert len(moved) > 20
    for name in matrices:
        torch.testing.assert_close(after[name], tuned[name], atol=1e-6, rtol=1e-4)
    errors = json.loads((tmp_path / "lora/error.json").read_text())
    assert errors["rank"] == 256 and 0 < errors["total"] < 1
    assert max(value for name, value in errors["tensors"].items() if name in moved) < 1e-4


@pytest.mark.parametrize("rank", [None, 3])
def test_a_kohya_file_does_to_a_pipeline_what_the_diffusers_file_does(
    project: Path, params: Params, tmp_path: Path, rank: int | None
) -> None:
    base = finished_run(params, project / "data").warm if rank is None else None
    found = []
    for form in ("diffusers", "kohya"):
        export(params, project / "data", form, rank, tmp_path / form)
        pipeline = AutoPipelineForText2Image.from_pretrained(params.base_model, dtype=torch.float32)
        if base:
            pipeline.unet = type(pipeline.unet).from_pretrained(base)
        pipeline.load_lora_weights(tmp_path / form)
        assert isinstance(pipeline, StableDiffusionXLPipeline)
        pipeline.fuse_lora()
        found.append(pipeline.unet.state_dict())
    assert found[0].keys() == found[1].keys()
    for name, value in found[0].items():
        torch.testing.assert_close(found[1][name], value)


def test_sd15_by_its_kohya_file(tiny: Path, params: Params, tmp_path: Path) -> None:
    model = load_base(str(tiny / "sd15"))
    for weight in add_lora(model, 2, generator(0, "lora")):
        weight.data.normal_(generator=generator(1, "lora"))
    export_lora(model, tmp_path / "lora")
    run = FinishedRun(
        params,
        ModelName("base_model", str(tiny / "sd15"), None),
        tiny / "sd15",
        model.family,
        tiny / "sd15/unet",
        tmp_path / "lora",
    )
    state, metadata = kohya_state(run.lora(), model.denoiser.config, model.family)
    assert metadata["ss_base_model_version"] == "sd_v1" and not run.warmed
    pipeline = StableDiffusionPipeline.from_pretrained(tiny / "sd15")
    pipeline.load_lora_weights(state)
    loaded = get_peft_model_state_dict(pipeline.unet, adapter_name="default_0")
    for name, value in lora_state(model.denoiser).items():
        torch.testing.assert_close(loaded[name], value)


def test_a_merged_pipeline_needs_nothing_beside_it(project: Path, params: Params, tmp_path: Path) -> None:
    export(params, project / "data", "merged", None, tmp_path / "whole")
    pipeline = AutoPipelineForText2Image.from_pretrained(tmp_path / "whole", dtype=torch.float32)
    tuned = dict(finished_run(params, project / "data").tuned())
    assert isinstance(pipeline.scheduler, DDPMScheduler) and not pipeline.scheduler.config.clip_sample
    for name, value in pipeline.unet.named_parameters():
        torch.testing.assert_close(value, tuned[name], rtol=0, atol=0)
    pipeline.set_progress_bar_config(disable=True)
    assert pipeline("a red ball", height=16, width=16, num_inference_steps=2).images[0].size == (16, 16)


def test_a_pipeline_has_the_sampler_of_its_run(broken: Path, monkeypatch, capsys) -> None:
    """Not that of parameters that were edited since."""
    monkeypatch.chdir(broken)
    values = YAML(typ="safe").load(Path("params.yaml"))
    write_lock(Path("dvc.lock"), values | {"scheduler": "euler" if values["scheduler"] != "euler" else "ddim"})
    found = CliRunner().invoke(app, ["export", "--format", "merged", "--out", "whole"])
    said = capsys.readouterr().err + found.output
    assert "but the stage train was run with" in said.replace("\n", " ") and "scheduler is" in said
    assert found.exit_code == 1 and not Path("whole").exists()
    write_lock(Path("dvc.lock"), values | {"precision": "bf16"})  # which export may choose
    assert CliRunner().invoke(app, ["export", "--format", "merged", "--out", "whole"]).exit_code == 0


def test_half_precision_says_what_its_rounding_costs(project: Path, params: Params, tmp_path: Path) -> None:
    half = params.model_copy(update={"precision": "bf16"})
    (_, said) = export(half, project / "data", "merged", None, tmp_path / "whole")
    assert said.startswith("rounding to bf16 makes ") and "of what training changed wrong" in said
    path = tmp_path / "whole/unet/diffusion_pytorch_model.safetensors"
    assert {value.dtype for value in read_safetensors(path).values()} == {torch.bfloat16}


def test_the_lora_of_a_warm_up_says_whose_it_is(project: Path, params: Params, tmp_path: Path) -> None:
    (said,) = export(params, project / "data", "kohya", None, tmp_path / "k")
    assert "data/warmup/unet, which the warm-up made" in said and "--rank" in said
    with safe_open(tmp_path / "k/comat.safetensors", "pt") as file:
        assert file.metadata()["ss_base_model_version"] == "sdxl_base_v1-0"


def test_what_cannot_be_exported_is_said_and_leaves_nothing(project: Path, params: Params, tmp_path: Path) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full/mine.txt").write_text("mine")
    cases = [
        (r"a merged pipeline has none: leave it out", "merged", 4, project / "data", "new"),
        (r"full: there is something already", "diffusers", None, project / "data", "full"),
        (r"expected both; run `dvc repro` first", "diffusers", None, tmp_path, "new"),
    ]
    for message, form, rank, data, out in cases:
        with pytest.raises(UserError, match=message):
            export(params, data, form, rank, tmp_path / out)
    assert [path.name for path in tmp_path.iterdir()] == ["full"]
    assert (tmp_path / "full/mine.txt").read_text() == "mine"


def test_weights_in_several_files_are_read_by_their_index(tmp_path: Path, tiny: Path) -> None:

    unet = UNet2DConditionModel.from_pretrained(tiny / "sdxl/unet")
    unet.save_pretrained(tmp_path, max_shard_size="50KB")
    assert len(list(tmp_path.glob("*.safetensors"))) > 1
    found = Weights(tmp_path)
    assert found.names == sorted(unet.state_dict())
    torch.testing.assert_close(found["conv_in.weight"], unet.conv_in.weight)
    with pytest.raises(UserError, match="found neither"):
        Weights(tmp_path / "none")


@pytest.fixture
def params(project: Path, monkeypatch: pytest.MonkeyPatch) -> Params:
    monkeypatch.chdir(project)
    return load(project / "params.yaml")
