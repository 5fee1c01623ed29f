"""`comat evaluate`: other pipelines of diffusers on the base's prompts, judged by the same benchmarks."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionXLPipeline
from huggingface_hub import constants
from PIL import Image
from ruamel.yaml import YAML
from safetensors.torch import save_file
from typer.testing import CliRunner

from comat.cli import app
from comat.diffusion.backbones import load_base
from comat.diffusion.lora import FILE, add_lora, lora_state
from comat.errors import UserError
from comat.evaluation import peers
from comat.params import Params, load
from comat.randomness import generator
from comat.samples import peers as drawing_of_peers
from comat.samples.peers import Peer, Weights, commit_of, draw_peer, load_pipeline
from comat.storage.images import read_rgb
from comat.storage.tables import IMAGE_INDEX, read_table, write_table
from tests.conftest import judging_of
from tests.tiny_hub import COMMIT, serving
from tests.tiny_models import save_pixart


@pytest.fixture
def params(project: Path) -> Params:
    return load(project / "params.yaml")


def evaluate_peer(params: Params, peer: Peer, base: Path, out: Path) -> dict:
    return peers.evaluate_peer(params, params.samples.batch_size, judging_of(params), peer, base, out)


@pytest.fixture(scope="session")
def pixart(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_pixart(tmp_path_factory.mktemp("peers") / "pixart")


@pytest.mark.parametrize("kind", ["sd15", "sdxl", "pixart"])
def test_a_peer_is_drawn_and_judged(
    project: Path, params: Params, tiny: Path, pixart: Path, tmp_path: Path, kind
) -> None:
    model = pixart if kind == "pixart" else tiny / kind
    metrics = evaluate_peer(params, Peer(kind, Weights(str(model))), project / "data/base_samples", tmp_path / kind)
    assert metrics == json.loads((tmp_path / kind / "metrics.json").read_text())
    assert metrics["oracle"]["total"]["n"] == metrics["clip_score"]["total"]["n"] == 4
    assert (metrics["clip_score"]["total"]["prompts"], metrics["clip_score"]["total"]["value_low"]) == (2, None)
    assert metrics["frechet"]["value"] > 0
    evaluators = json.loads((tmp_path / kind / "evaluators.json").read_text())
    assert evaluators == json.loads((project / "data/evaluate/evaluators.json").read_text())


def test_an_image_depends_on_its_own_prompt_and_seed_alone(project: Path, params: Params, tiny: Path, tmp_path) -> None:
    """The pipeline, called for one prompt with that sample's generator, draws what stands among the peer's images."""
    peer = Peer("xl", Weights(str(tiny / "sdxl")))
    evaluate_peer(params, peer, project / "data/base_samples", tmp_path)
    row = read_table(tmp_path / "index.parquet", IMAGE_INDEX)[3]
    pipeline = StableDiffusionXLPipeline.from_pretrained(tiny / "sdxl")
    pipeline.set_progress_bar_config(disable=True)
    size, own = {"height": params.resolution, "width": params.resolution}, [generator(0, "sample", row["prompt_id"], 1)]
    steps = {"num_inference_steps": params.sampling_steps, "guidance_scale": params.guidance_scale}
    image = pipeline([row["text"]], **size, **steps, generator=own).images[0]
    assert row["seed"] == 1
    assert np.abs(read_rgb(tmp_path / row["path"]).astype(int) - np.asarray(image).astype(int)).max() <= 1


def test_images_that_are_there_are_left_and_those_of_another_model_refused(
    project: Path, params: Params, tiny: Path, tmp_path: Path
) -> None:
    base, out = project / "data/base_samples", tmp_path / "peer"
    evaluate_peer(params, Peer("peer", Weights(str(tiny / "sd15"))), base, out)
    drawn = sorted((out / "images").iterdir())
    before = {path: path.read_bytes() for path in drawn}
    shutil.copy(drawn[1], drawn[0])
    drawn[2].unlink()
    evaluate_peer(params, Peer("peer", Weights(str(tiny / "sd15"))), base, out)
    assert drawn[0].read_bytes() == before[drawn[1]]
    assert drawn[2].read_bytes() == before[drawn[2]]
    with pytest.raises(UserError, match=r"holds images of another model or run \(model, fingerprint\)"):
        evaluate_peer(params, Peer("peer", Weights(str(tiny / "sdxl"))), base, out)


def test_a_batch_is_drawn_whole_wherever_a_run_was_ended(
    project: Path, params: Params, tiny: Path, tmp_path: Path, monkeypatch
) -> None:
    """Four images in batches of two, of which the second and the third lack: both batches again, as they were."""
    base, out = project / "data/base_samples", tmp_path / "peer"
    own = params.model_copy(update={"samples": params.samples.model_copy(update={"batch_size": 2})})
    evaluate_peer(own, Peer("peer", Weights(str(tiny / "sd15"))), base, out)
    paths = [out / row["path"] for row in read_table(out / "index.parquet", IMAGE_INDEX)]
    for path in paths[1:3]:
        path.unlink()
    batches: list[list[str]] = []
    drawn = drawing_of_peers._drawn

    def seen(drawing, method, weights, asked):
        batches.extend([(row["prompt_id"], row["seed"]) for row in part] for part in asked)
        return drawn(drawing, method, weights, asked)

    monkeypatch.setattr(drawing_of_peers, "_drawn", seen)
    evaluate_peer(own, Peer("peer", Weights(str(tiny / "sd15"))), base, out)
    rows = [(row["prompt_id"], row["seed"]) for row in read_table(out / "index.parquet", IMAGE_INDEX)]
    assert batches == [rows[:2], rows[2:]] and all(path.is_file() for path in paths)


def test_images_drawn_elsewhere_are_judged_where_all_are_there(
    project: Path, params: Params, tiny: Path, tmp_path: Path
) -> None:
    base, peer = project / "data/base_samples", Peer("elsewhere", None)
    shutil.copytree(base / "images", tmp_path / "images")
    metrics = evaluate_peer(params, peer, base, tmp_path)
    found = json.loads((project / "data/evaluate/metrics.json").read_text())
    assert metrics["clip_score"]["total"]["value"] == pytest.approx(found["clip_score"]["total"]["base"])
    assert metrics["frechet"]["value"] == pytest.approx(found["frechet"]["base"])
    next((tmp_path / "images").iterdir()).unlink()
    with pytest.raises(UserError, match=r"\.png: missing, as 1 of 4 images"):
        evaluate_peer(params, peer, base, tmp_path)


def test_the_lora_and_another_unet_change_the_pipeline(project: Path, tiny: Path) -> None:
    """The tuned model as a peer: the base with the warmed-up UNet and the LoRA that `train` wrote."""
    unet, lora = str(project / "data/warmup/unet"), str(project / "data/train/lora")
    pipeline = load_pipeline(Weights(str(tiny / "sdxl"), unet=unet, lora=lora), "fp32")
    plain = load_pipeline(Weights(str(tiny / "sdxl")), "fp32")
    assert pipeline.get_active_adapters() and not plain.get_active_adapters()
    assert not pipeline.unet.conv_in.weight.equal(plain.unet.conv_in.weight)


@pytest.fixture
def lora(tiny: Path) -> dict[str, torch.Tensor]:
    """A LoRA of rank 2 for the tiny SDXL, under diffusers' names."""
    backbone = load_base(str(tiny / "sdxl"))
    add_lora(backbone, 2, torch.Generator().manual_seed(0))
    return backbone.exported_lora(lora_state(backbone.denoiser))


def of_kohya(lora: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Under the names of most published files, with a text encoder's beside."""
    found = {}
    for name, value in lora.items():
        place, side = re.fullmatch(r"unet\.(.*)\.lora\.(down|up)\.weight", name).groups()
        found[f"lora_unet_{place.replace('.', '_')}.lora_{side}.weight"] = value.contiguous()
        found[f"lora_unet_{place.replace('.', '_')}.alpha"] = torch.tensor(2.0)
    for projection in ("q_proj", "out_proj"):
        text = f"lora_te1_text_model_encoder_layers_0_self_attn_{projection}"
        found |= {f"{text}.lora_down.weight": torch.ones(2, 8), f"{text}.lora_up.weight": torch.ones(8, 2)}
    return found


def as_peft(lora: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    sides = {".lora.down.": ".lora_A.", ".lora.up.": ".lora_B."}
    return {re.sub(r"\.lora\.(down|up)\.", lambda m: sides[m[0]], name): value for name, value in lora.items()}


def of_the_original(lora: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Of the middle block alone, as the original model of SDXL calls it."""
    kohya = of_kohya({name: value for name, value in lora.items() if "mid_block" in name})
    return {name.replace("mid_block_attentions_0", "middle_block_1"): value for name, value in kohya.items()}


def with_dora(lora: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    vectors = {
        n.replace("lora_B.weight", "lora_magnitude_vector"): v for n, v in as_peft(lora).items() if "lora_B" in n
    }
    return as_peft(lora) | {name: torch.ones(len(value)) for name, value in vectors.items()}


@pytest.mark.parametrize("named", [dict, as_peft, of_kohya, of_the_original, with_dora])
def test_a_peer_s_lora_is_taken_under_any_of_the_usual_names(tiny: Path, lora, named, tmp_path: Path) -> None:
    save_file(named(lora), tmp_path / FILE)
    pipeline = load_pipeline(Weights(str(tiny / "sdxl"), lora=str(tmp_path)), "fp32")
    expected = len([name for name in named(lora) if "unet" in name and not name.endswith(".alpha")])
    assert len([name for name, _ in pipeline.unet.named_parameters() if "lora_" in name]) == expected


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda w, first: w.pop(first), r"111 weights 0 are left over, and 1 are missing \(unet\.down_blocks"),
        (lambda w, first: w.update({"unet.x.lora.up.weight": torch.ones(2, 2)}), r"113 weights 1 are left over"),
        (lambda w, first: w.clear(), "of its 0 weights 0 are left over"),
        (lambda w, first: w.update({f"x{name}": w.pop(name) for name in list(w)}), "112 weights 112 are left over"),
        (lambda w, first: w.update({first: w[first] * float("nan")}), "1 of 112 weights are not finite"),
        (lambda w, first: w.update({first: torch.ones(2, 3)}), "cannot load LoRA: .*size mismatch"),
    ],
    ids=["missing", "left over", "empty", "renamed", "nan", "shape"],
)
def test_a_peer_s_lora_that_does_not_fit_is_refused(tiny: Path, lora, change, message: str, tmp_path: Path) -> None:
    """diffusers leaves out what does not fit, and only warns."""
    weights = {name: value.contiguous() for name, value in lora.items()}
    change(weights, sorted(weights)[0])
    save_file(weights, tmp_path / FILE)
    with pytest.raises(UserError, match=message):
        load_pipeline(Weights(str(tiny / "sdxl"), lora=str(tmp_path)), "fp32")


def test_the_commit_of_a_hub_id_is_found_once_and_kept(tiny: Path, tmp_path: Path, monkeypatch) -> None:
    shutil.copytree(tiny / "sd15", tmp_path / "served/user/sd15")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    with serving(tmp_path / "served") as hub:
        monkeypatch.setattr(constants, "ENDPOINT", hub.url)
        template = hub.url + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        assert commit_of(Weights("user/sd15", "main")) == COMMIT
        with pytest.raises(UserError, match="no such repository"):
            commit_of(Weights("user/nothing"))
    assert commit_of(Weights(str(tiny / "sd15"))) is None


def test_what_is_no_pipeline_is_named(tiny: Path) -> None:
    with pytest.raises(UserError, match=r"blip': cannot load model_index\.json"):
        load_pipeline(Weights(str(tiny / "blip")), "fp32")


def test_a_model_that_does_not_load_claims_no_folder(project: Path, params: Params, tiny: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="model_index"):
        evaluate_peer(params, Peer("x", Weights(str(tiny / "blip"))), project / "data/base_samples", tmp_path / "x")
    assert not (tmp_path / "x").exists()


def test_pickled_weights_are_not_read(tiny: Path, tmp_path: Path) -> None:
    shutil.copytree(tiny / "sd15", tmp_path / "old")
    weights = tmp_path / "old/unet/diffusion_pytorch_model.safetensors"
    weights.rename(weights.with_suffix(".bin"))
    with pytest.raises(UserError, match="cannot load pipeline"):
        load_pipeline(Weights(str(tmp_path / "old")), "fp32")


@pytest.mark.parametrize(("given", "name"), [(["sd15", "--name", "other"], "other"), (["sd15/unet/.."], "sd15")])
def test_the_command_prints_the_peer_beside_base_and_tuned(
    project: Path, tiny: Path, tmp_path: Path, monkeypatch, given: list[str], name: str
) -> None:
    """A folder without a name of its own, as `.` or `..`, is called as the folder that it is."""
    shutil.copytree(project / "data", tmp_path / "data")
    YAML().dump(load(project / "params.yaml").model_dump(), tmp_path / "params.yaml")
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(app, ["evaluate", "--model", f"{tiny}/{given[0]}", *given[1:]])
    assert result.exit_code == 0, result.stderr
    head = result.stdout.splitlines()[0].split()
    assert head[-4:] == ["95%", "interval", "judged", name]
    assert name in CliRunner().invoke(app, ["show"]).stdout
    assert "nan" not in result.stdout


def test_what_replaces_weights_needs_a_model_to_replace_them_in(project: Path, monkeypatch) -> None:
    """A LoRA given for images that were drawn elsewhere changed nothing, and nobody was told."""
    monkeypatch.chdir(project)
    result = CliRunner().invoke(app, ["evaluate", "--name", "elsewhere", "--lora", "data/train/lora"])
    assert result.exit_code == 1
    assert "--revision, --unet and --lora say how --model draws" in result.stderr


def test_what_is_kept_of_images_drawn_elsewhere_names_no_model(project: Path, params: Params, tmp_path: Path) -> None:
    """Nor parameters of sampling. Folders with an older record, which did claim them, are still the same peer's."""
    shutil.copytree(project / "data/base_samples/images", tmp_path / "images")
    old = {"name": "elsewhere", "model": None, "revision": None, "unet": None, "lora": None}
    (tmp_path / "peer.json").write_text(json.dumps({**old, "seed": 7, "sampling_steps": 50, "fingerprint": "0"}))
    draw_peer(params, 3, Peer("elsewhere", None), project / "data/base_samples", tmp_path)
    assert json.loads((tmp_path / "peer.json").read_text()) == old


def images_of(project: Path, out: Path) -> list[Path]:
    shutil.copytree(project / "data/base_samples/images", out / "images")
    return sorted((out / "images").iterdir())


def save_turned(path: Path, size: tuple[int, int]) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", size).save(path, exif=exif)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (
            lambda path, size: Image.new("RGBA", size, (255, 0, 0, 0)).save(path),
            r"transparent \(RGBA\), first of 1 such",
        ),
        (lambda path, size: Image.new("L", size).save(path, transparency=0), r"transparent \(L\)"),
        (lambda path, size: Image.fromarray(np.full(size, 40000, np.uint16)).save(path), "of mode I;16, first of 1"),
        (save_turned, r"turned by its EXIF tag \(orientation 6\)"),
        (
            lambda path, size: Image.new("RGB", (size[0] + 8, size[1])).save(path),
            "24 x 16 px, where 3 of 4 are 16 x 16",
        ),
        (lambda path, size: path.write_bytes(path.read_bytes()[:-40]), "not readable as an image"),
    ],
    ids=["RGBA", "colour key", "16 bits", "EXIF", "size", "cut off"],
)
def test_images_drawn_elsewhere_that_judges_would_misread_are_refused(
    project: Path, params: Params, tmp_path: Path, spoil, message: str
) -> None:
    """They were read black, white, lying, or ended in an error without a name; here the second of four is so."""
    path = images_of(project, tmp_path)[1]
    spoil(path, Image.open(path).size)
    with pytest.raises(UserError, match=rf"{path.name}: {message}.*of 4 images; expected 8-bit RGB or grey"):
        draw_peer(params, 3, Peer("x", None), project / "data/base_samples", tmp_path)
    assert not (tmp_path / "peer.json").exists()


def test_grey_and_palette_images_drawn_elsewhere_are_taken(project: Path, params: Params, tmp_path: Path) -> None:
    paths = images_of(project, tmp_path)
    for path, mode in zip(paths, ("L", "P", "1", "RGB"), strict=True):
        Image.open(path).convert(mode).save(path)
    draw_peer(params, 3, Peer("x", None), project / "data/base_samples", tmp_path)
    assert len(read_table(tmp_path / "index.parquet", IMAGE_INDEX)) == 4


def test_images_that_nothing_says_the_model_of_are_not_credited_to_one(
    project: Path, params: Params, tiny: Path, tmp_path: Path
) -> None:
    images_of(project, tmp_path)[0].unlink()
    with pytest.raises(
        UserError, match=r"peer\.json: missing, where 3 of 4 images are, .*leave --model and --method out"
    ):
        draw_peer(params, 3, Peer("x", Weights(str(tiny / "sd15"))), project / "data/base_samples", tmp_path)
    assert not (tmp_path / "index.parquet").exists()


def test_metrics_of_other_images_go_before_new_ones_are_judged(
    project: Path, params: Params, tiny: Path, tmp_path: Path
) -> None:
    """Judging that died left them beside an index of all images. Those of the same images stay."""
    base, metrics = tmp_path / "base", tmp_path / "x/metrics.json"
    shutil.copytree(project / "data/base_samples", base)
    rows = read_table(base / "index.parquet", IMAGE_INDEX)
    for count, stays in ((4, False), (4, True), (3, False)):
        write_table(base / "index.parquet", rows[:count], IMAGE_INDEX)
        draw_peer(params, 3, Peer("x", Weights(str(tiny / "sd15"))), base, tmp_path / "x")
        assert metrics.exists() == stays
        metrics.write_text("{}")
    (tmp_path / "x" / rows[0]["path"]).unlink()
    draw_peer(params, 3, Peer("x", Weights(str(tiny / "sd15"))), base, tmp_path / "x")
    assert not metrics.exists()
