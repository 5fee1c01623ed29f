"""Denoising real images, with losses on their attention maps: TokenCompose as a row by parameters."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import pytest
import torch
from ruamel.yaml import YAML

from benchmarks.miniature import ROWS
from comat.diffusion.load import load_backbone
from comat.errors import UserError
from comat.method.attribute_concentration import Entity, with_masks
from comat.method.batch import NO_IMAGES, Batch
from comat.method.denoising import denoising_loss
from comat.params import load
from comat.randomness import generator
from comat.storage.tables import ENTITIES, EVALUATION_PROMPTS, read_safetensors, read_table, write_table
from comat.storage.tensor_store import TensorStore
from comat.tokenizers import find_columns
from comat.training.data import TrainingData
from comat.training.trainer import Trainer
from tests import tiny_families
from tests.conftest import run
from tests.test_replay import TERMS, build, gradient, has_the_full_gradient, relative

ROW = {key: YAML(typ="safe").load(value) for key, value in ROWS["grounded"].items()}


def test_the_loss_by_hand() -> None:
    """Wrong by 1 and 3, mean of the squares (1 + 9) / 2 = 5; and by nothing."""
    said, target = torch.tensor([[[[1.0, 5.0]]], [[[2.0, 2.0]]]]), torch.tensor([[[[2.0, 2.0]]], [[[2.0, 2.0]]]])
    assert denoising_loss(said, target).tolist() == [5.0, 0.0]


def one_image(batch: Batch) -> Batch:
    return Batch(batch.iteration, batch.prompts, batch.entities, real=batch.real[:1])


def test_of_one_image_it_is_eq_1(make_params, tiny: Path) -> None:
    """By the released model's schedule: z = sqrt(a) x + sqrt(1 - a) eps, and the UNet should say eps."""
    params = make_params(**TERMS["denoising"], base_model=str(tiny / "sd15"), discriminator_model=str(tiny / "sd15"))
    step, _, batch = build(params)
    values = step(one_image(batch))
    rng, x = generator(params.seed, "denoising", 3, 0), batch.real.latents[:1]
    t = torch.randint(1000, (1,), generator=rng)
    eps = torch.randn(x.shape, generator=rng)
    own = step.backbone.scheduler_config
    betas = torch.linspace(own["beta_start"] ** 0.5, own["beta_end"] ** 0.5, 1000, dtype=torch.float64) ** 2
    a = (1 - betas).cumprod(0)[t].float()
    words = step.backbone.encode_prompts(batch.real.captions[:1]).tokens
    said = step.backbone.denoiser(a.sqrt() * x + (1 - a).sqrt() * eps, t, words).sample
    expected = float((said.detach() - eps).square().mean())
    assert values["denoising"] == pytest.approx(expected, rel=1e-4)
    assert values["loss"] == pytest.approx(2 * expected, rel=1e-4)


def test_of_one_image_it_is_the_flow_s(make_params, tmp_path: Path) -> None:
    """z = (1 - s) x + s eps, and the transformer should say eps - x."""
    model = str(tiny_families.save_sd3(tmp_path / "sd3"))
    own = {"base_model": model, "discriminator_model": model, "scheduler": "model"}
    step, _, batch = build(make_params(**TERMS["denoising"], **own))
    values = step(one_image(batch))
    rng, x = generator(step.p.seed, "denoising", 3, 0), batch.real.latents[:1]
    t = step.backbone.draw_times(1, x.shape[-2:], rng)
    eps, s = torch.randn(x.shape, generator=rng), t / 1000
    said = step.backbone.denoise((1 - s) * x + s * eps, t, step.backbone.encode_prompts(batch.real.captions[:1]))
    assert values["denoising"] == pytest.approx(float((said.detach() - (eps - x)).square().mean()), rel=1e-4)


@pytest.mark.parametrize("family", ["sd2", "sd3", "pixart_sigma", "flux_dev", "sana", "qwen_image", "z_image"])
def test_every_family_is_grounded(make_params, tmp_path: Path, family: str) -> None:
    """The gradient is that of the plain expression, image after image."""
    model = str(getattr(tiny_families, f"save_{family}")(tmp_path / family))
    own = {"base_model": model, "discriminator_model": model, "scheduler": "model"}
    step, lora, batch = build(make_params(**TERMS["grounded"], **own))
    values = has_the_full_gradient(step, lora, batch)
    assert values["attribute"] != 0


def test_nothing_is_generated_where_no_loss_reads_it(make_params) -> None:
    """One pass through the denoiser, of two images and no prompt; no captioner or discriminator is there."""
    step, _, batch = build(make_params(**TERMS["grounded"]))
    sizes: list[int] = []
    step.backbone.denoiser.register_forward_pre_hook(lambda _, inputs: sizes.append(len(inputs[0])))
    values = step(batch)
    assert sizes == [2] and step.captioner is None and step.discriminator is None
    assert values["denoising"] > 0 and values["attribute"] > 0
    assert values["i2t"] == values["adversarial"] == values["discriminator"] == 0


@pytest.mark.parametrize("chunk", [1, 2])
def test_neither_chunks_nor_shares_change_anything(make_params, chunk: int) -> None:
    """Two images on three processes: one has none of them."""
    step, lora, batch = build(make_params(**TERMS["grounded"]))
    whole, expected = step(batch), gradient(lora)
    step.chunk = chunk
    for weight in lora:
        weight.grad = None
    parts = [step(batch.share(rank, 3)) for rank in range(3)]
    assert relative(gradient(lora), expected) < 1e-5
    assert {name: sum(part[name] for part in parts) for name in whole} == pytest.approx(whole, rel=1e-5, abs=1e-7)


def test_the_loss_scale_is_in_the_gradient_alone(make_params) -> None:
    step, lora, batch = build(make_params(**TERMS["grounded"]))
    plain, expected = step(batch), gradient(lora)
    step.loss_scale = 8.0
    for weight in lora:
        weight.grad = None
    assert step(batch) == plain
    assert relative(gradient(lora), 8 * expected) < 1e-6


def test_a_batch_without_real_images_learns_nothing_of_them(make_params) -> None:
    step, lora, batch = build(make_params(**TERMS["grounded"]))
    values = step(Batch(batch.iteration, batch.prompts, batch.entities, real=NO_IMAGES))
    assert not any(values.values()) and all(weight.grad is None for weight in lora)


def test_an_entity_that_is_not_found_is_left_out() -> None:
    """Of the first image the second of two, of the second both, of the third, which has none, none."""
    a, b = Entity("ball", (1,)), Entity("cube", (2,))
    nothing, left = torch.zeros(2, 2, dtype=torch.bool), torch.tensor([[True, False], [True, False]])
    masks = [torch.stack([left, nothing]), torch.stack([nothing, nothing]), nothing[None][:0]]
    entities, found = with_masks([[a, b], [a, b], []], masks)
    assert entities == [[a], [], []]
    assert [own.tolist() for own in found] == [[left.tolist()], [], []]


@pytest.fixture(scope="module")
def tokencompose(project: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The project with the row's parameters, whose captions are parsed and whose LoRA is trained on."""
    root = tmp_path_factory.mktemp("tokencompose")
    for name in ("data", "coco"):
        shutil.copytree(project / name, root / name)
    values = YAML(typ="safe").load((project / "params.yaml").read_text()) | ROW
    values["train"] |= {"gradients_every": 2}
    YAML().dump(values, root / "params.yaml")
    for stage in ("caption_entities", "train"):
        shutil.rmtree(root / "data" / stage)
        run(stage, root)
    return root


def data_of(root: Path, **changes: object) -> TrainingData:
    params = load(root / "params.yaml").model_copy(update=changes)
    names = ("prompts", "entities", "reference_latents", "image_latents", "caption_entities")
    folders = [root / "data" / name for name in names]
    columns = find_columns(params.base_model)
    return TrainingData(params, params.discriminator_input, params.train.guard, *folders, columns)


def test_images_whose_captions_are_held_out_teach_nothing(tokencompose: Path, tmp_path: Path) -> None:
    """The caption of one image in other letters, that of another with a word more: neither is in 50 batches."""
    shutil.copytree(tokencompose, tmp_path / "p")
    root, before = tmp_path / "p", data_of(tokencompose)
    assert before.images is not None
    ids = before.image_ids
    exact, near = (before.images.caption(id) for id in ids[:2])
    same = {id for id in ids if before.images.caption(id) in (exact, near)}
    rows = [{"list": "own", "text": text, "near": 0.5} for text in (f"{exact.upper()}!", f"{near} here")]
    write_table(root / "data/prompts/evaluation.parquet", rows, EVALUATION_PROMPTS)
    data = data_of(root)
    assert not set(data.image_ids) & same and 2 <= data.held_out == len(ids) - len(data.image_ids)
    drawn = {caption for n in range(50) for caption in data.batch(n).real.captions}
    assert drawn == {before.images.caption(id) for id in data.image_ids}
    everything = [{"list": "own", "text": before.images.caption(id), "near": 1.0} for id in ids]
    write_table(root / "data/prompts/evaluation.parquet", everything, EVALUATION_PROMPTS)
    with pytest.raises(UserError, match=r"all \d+ captions are evaluation prompts"):
        data_of(root)


def test_the_row_trains(tokencompose: Path) -> None:
    with (tokencompose / "data/train/curves.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 4 and all(float(row["denoising"]) > 0 and float(row["i2t"]) == 0 for row in rows)
    assert [bool(row["grad_denoising"]) for row in rows] == [True, False, True, False]
    assert float(rows[0]["grad_denoising"]) > 0 and float(rows[0]["grad_attribute"]) > 0
    metrics = json.loads((tokencompose / "data/train/metrics.json").read_text())["train"]
    assert metrics["denoising"] == pytest.approx(sum(float(row["denoising"]) for row in rows) / 4)
    lora = read_safetensors(tokencompose / "data/train/lora/pytorch_lora_weights.safetensors")
    assert max(float(value.abs().max()) for name, value in lora.items() if "lora_B" in name or ".up." in name) > 0


def test_a_run_that_was_broken_off_ends_with_the_same_bytes(tokencompose: Path, tmp_path: Path) -> None:
    params = load(tokencompose / "params.yaml")
    for last in (2, 4):
        backbone = load_backbone(params, tokencompose / "data/warmup")
        trainer = Trainer(params, backbone, data_of(tokencompose), tmp_path)
        trainer._run(last)
    trainer.export(tmp_path / "out")
    for file in ("lora/pytorch_lora_weights.safetensors", "curves.csv"):
        assert (tmp_path / "out" / file).read_bytes() == (tokencompose / "data/train" / file).read_bytes(), file


def test_captions_have_entities_of_their_own(tokencompose: Path) -> None:
    """Each image of the batch those of its caption; of the noun alone fewer columns than with its attributes."""
    data, whole = data_of(tokencompose), data_of(tokencompose, attribute_tokens="entity")
    store = TensorStore(tokencompose / "data/image_latents")
    rows = read_table(tokencompose / "data/caption_entities/entities.parquet", ENTITIES)
    assert {row["prompt_id"] for row in rows} <= set(store.ids)
    batch, longer = data.batch(0).real, whole.batch(0).real
    assert len(batch.entities) == len(batch.captions) == 2 and any(batch.entities)
    for caption, own, more in zip(batch.captions, batch.entities, longer.entities, strict=True):
        assert all(entity.noun[:3] in caption.lower() for entity in own)
        assert all(set(a.tokens) <= set(b.tokens) for a, b in zip(own, more, strict=True))
    assert sum(len(e.tokens) for group in longer.entities for e in group) > sum(
        len(e.tokens) for group in batch.entities for e in group
    )


def test_captions_of_no_entity_are_refused(tokencompose: Path, tmp_path: Path) -> None:
    root = tmp_path / "project"
    shutil.copytree(tokencompose, root)
    write_table(root / "data/caption_entities/entities.parquet", [], ENTITIES)
    with pytest.raises(UserError, match=r"not one of the 5 captions of real images has an entity"):
        data_of(root)


def test_without_it_no_caption_is_parsed_and_no_curve_is_there(project: Path) -> None:
    assert read_table(project / "data/caption_entities/entities.parquet", ENTITIES) == []
    assert "denoising" not in (project / "data/train/curves.csv").read_text()
    assert "denoising" not in (project / "data/train/metrics.json").read_text()
