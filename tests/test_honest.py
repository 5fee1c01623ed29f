"""Exit status 0 means good outputs: finite, of the model asked for, drawn as what it is."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from comat.diffusion.backbones import load_base
from comat.errors import UserError
from comat.evaluation.statistics import mean_interval
from comat.judges.vqa import BlipVqa
from comat.models.finite import finite
from comat.params import load
from comat.segmenters.grounding import Thresholds, find_boxes
from comat.storage.tables import ENTITIES, read_table, write_json, write_table
from comat.tokenizers import find_columns
from comat.training.data import TrainingData
from comat.training.warmup import warm_up
from tests.tiny_judges import save_blip_vqa

# Finite, or an error


def test_results_that_are_not_finite_are_counted_by_image() -> None:
    values = torch.ones(3, 2, 2)
    assert finite(values, "x", torch.float32) is values
    values[1, 0, 0], values[2, 1, 1] = float("nan"), float("inf")
    with pytest.raises(UserError, match=r"the encoder: 2 of 3 results are no finite numbers in float16; .*precision"):
        finite(values, "the encoder", torch.float16)


@pytest.mark.parametrize("part", ["unet", "vae", "text_encoder"])
def test_a_base_of_weights_that_are_not_finite_is_refused(base: Path, part: str) -> None:
    path = next((base / part).glob("*.safetensors"))
    weights = load_file(path)
    name = sorted(weights)[0]
    weights[name].view(-1)[0] = float("nan")
    save_file(weights, path, {"format": "pt"})
    with pytest.raises(UserError, match=rf"{part}: .* numbers that are not finite in torch.float32"):
        load_base(str(base))


def test_weights_that_overflow_in_half_precision_are_refused(base: Path) -> None:
    path = next((base / "vae").glob("*.safetensors"))
    weights = load_file(path)
    weights[sorted(weights)[0]].view(-1)[0] = 1e6  # fp16 ends at 65,504
    save_file(weights, path, {"format": "pt"})
    load_base(str(base))
    with pytest.raises(UserError, match=r"vae: .* not finite in torch.float16; .*another precision"):
        load_base(str(base), precision="fp16")


def test_a_warm_up_that_diverges_is_an_error_at_once(make_params, tmp_path: Path) -> None:
    params = make_params()
    section = params.warmup.model_copy(update={"steps": 9, "lora_rank": 0, "batch_size": 2, "learning_rate": 1e30})
    with pytest.raises(UserError, match=r"warm-up: .*finite.*lower warmup.learning_rate \(1e\+30\)"):
        warm_up(load_base(params.base_model), section, 0, torch.randn(3, 4, 8, 8), ["a", "b", "c"], tmp_path)


def test_the_warm_up_looks_at_its_weights_after_the_last_step(make_params, tmp_path: Path) -> None:
    """No further loss would tell."""
    params = make_params()
    section, backbone = params.warmup.model_copy(update={"steps": 0}), load_base(params.base_model)
    backbone.denoiser.conv_out.bias.data[0] = math.inf
    with pytest.raises(
        UserError, match=r"1 weights of the denoiser are not finite after the last step, conv_out.bias first"
    ):
        warm_up(backbone, section, 0, torch.randn(3, 4, 8, 8), ["a", "b", "c"], tmp_path)


@pytest.mark.parametrize("name", ["learning_rate", "discriminator_learning_rate"])
def test_a_learning_rate_beyond_all_reason_is_refused(make_params, name: str) -> None:
    with pytest.raises(ValueError, match="less than or equal to 1"):
        make_params(**{name: 1e30})


def test_json_holds_no_number_that_is_none(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", {"x": 1.0})
    with pytest.raises(UserError, match=r"a.json: a number is not finite .*; nothing was written"):
        write_json(tmp_path / "a.json", {"x": math.nan})
    assert json.loads((tmp_path / "a.json").read_text()) == {"x": 1.0}


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_an_interval_of_values_that_are_not_finite_is_an_error(bad: float) -> None:
    with pytest.raises(ValueError, match="expected finite values: 1 of 2 are not"):
        mean_interval([0.5, bad], ["a", "b"], 10, 0)


# Training on nothing


def test_every_term_off_is_refused(make_params) -> None:
    off = {"concept_activation": False, "attribute_steps": 0, "lambda_adv": 0.0, "image_batch": 0}
    with pytest.raises(ValueError, match="nothing would be learned"):
        make_params(**off)
    make_params(**off | {"lambda_adv": 0.5})
    make_params(**off | {"image_batch": 2, "denoising_weight": 1.0})
    make_params(**off | {"image_batch": 2, "attribute_images": "real"})  # its one noise level is no attribute step
    make_params(**off, train_steps=0)


def test_attributes_of_no_entity_are_refused(project: Path, tmp_path: Path) -> None:
    """Attribute concentration is on, and every entity was filtered."""
    params = load(project / "params.yaml")
    rows = [{**row, "kept": False} for row in read_table(project / "data/entities/entities.parquet", ENTITIES)]
    write_table(tmp_path / "entities.parquet", rows, ENTITIES)
    folders = [
        project / "data" / name for name in ("prompts", "reference_latents", "image_latents", "caption_entities")
    ]
    folders.insert(1, tmp_path)
    with pytest.raises(UserError, match=r"not one of the \d+ training prompts has an entity"):
        TrainingData(params, params.discriminator_input, params.train.guard, *folders, find_columns(params.base_model))


def test_a_box_that_is_no_number_is_no_missing_object() -> None:
    """Grounding DINO's: it would have been no box, and GenEval's or a mask's object not there."""

    class Broken:
        tokenizer: Any = None

        def __call__(self, images: torch.Tensor, captions: Sequence[str]) -> tuple[torch.Tensor, torch.Tensor]:
            return torch.full((1, 2, 3), math.nan), torch.zeros(1, 2, 4)

    with pytest.raises(UserError, match="Grounding DINO: 1 of 1 results are no finite numbers"):
        find_boxes(Broken(), torch.zeros(1, 3, 8, 8), [["cat"]], Thresholds(0.3, 0.2, 0.8))


def test_an_answer_that_is_no_number_is_no_answer(tmp_path: Path) -> None:
    """BLIP's: of choices the first was taken, and a question answered with no."""
    vqa = BlipVqa(str(save_blip_vqa(tmp_path / "vqa")), None, torch.device("cpu"))
    torch.nn.init.constant_(vqa.model.text_decoder.cls.predictions.bias, math.nan)
    image = np.zeros((32, 32, 3), np.uint8)
    with pytest.raises(UserError, match="BLIP-VQA: 1 of 1 results are no finite numbers"):
        vqa.yes([image], [["a red ball?"]])
    with pytest.raises(UserError, match="BLIP-VQA: 2 of 2 results are no finite numbers"):
        vqa.log_likelihoods([image], [[("how many?", ["one", "two"])]])
