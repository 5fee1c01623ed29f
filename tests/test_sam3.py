"""SAM 3: the library's own masks, an image seen once for all nouns, and one noun a place."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import Sam3Model, Sam3Processor

from benchmarks.segmenters import SIZES, sam3_config
from comat.errors import UserError
from comat.models.finite import NotFinite
from comat.models.names import named_models
from comat.segmenters.load import load_segmenter
from comat.segmenters.sam3 import Limits, Sam3
from tests import tiny_segmenters
from tests.imports import ROOT

CPU = torch.device("cpu")
NOUNS = [["ball", "cube"], [], ["star", "ring", "ball"]]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_segmenters.save_sam3(tmp_path_factory.mktemp("sam3") / "model")


def images(count: int) -> torch.Tensor:
    return torch.rand(count, 3, 40, 24, generator=torch.Generator().manual_seed(0))


def load(folder: Path, threshold: float = 0.3, mask: float = 0.5, nms: float = 1.0) -> Sam3:
    return Sam3(str(folder), None, Limits(threshold, mask, nms), CPU, torch.float32)


@pytest.mark.parametrize(("threshold", "mask"), [(0.3, 0.5), (0.35, 0.4)])
def test_masks_are_those_of_the_library(model: Path, threshold: float, mask: float) -> None:
    """One call for each image and noun, the union of the instances that its own post-processing keeps."""
    own, processor = Sam3Model.from_pretrained(model).eval(), Sam3Processor.from_pretrained(model)
    expected = []
    for image, group in zip(images(3), NOUNS, strict=True):
        for noun in group:
            inputs = processor(images=[image], text=[noun], do_rescale=False, return_tensors="pt")
            size = inputs.pop("original_sizes").tolist()
            with torch.no_grad():
                found = own(**inputs)
            (one,) = processor.post_process_instance_segmentation(found, threshold, mask, target_sizes=size)
            expected.append(one["masks"].bool().any(0) if len(one["masks"]) else torch.zeros(40, 24).bool())
    masks = load(model, threshold, mask).masks(images(3), NOUNS)
    assert [tuple(m.shape) for m in masks] == [(2, 40, 24), (0, 40, 24), (3, 40, 24)]
    assert torch.equal(torch.cat(masks), torch.stack(expected))
    assert 0 < torch.stack(expected).float().mean() < 1


def test_an_image_is_seen_once_for_all_of_its_nouns(model: Path) -> None:
    segmenter, seen = load(model), []
    segmenter.model.vision_encoder.register_forward_hook(lambda *call: seen.append(len(call[1][0])))
    segmenter.masks(images(3), NOUNS)
    assert seen == [2]


def test_two_nouns_of_one_thing_share_no_instance(model: Path) -> None:
    """Asked for twice, every instance is found twice at one place; one of each two stays, as if asked for once."""
    one = load(model, 0.1, nms=0.9).masks(images(1), [["ball"]])[0]
    twice = load(model, 0.1, nms=0.9).masks(images(1), [["ball", "ball"]])[0]
    assert one.any() and torch.equal(twice.any(0), one[0])
    open_to_both = load(model, 0.1, nms=1.0).masks(images(1), [["ball", "ball"]])[0]
    assert torch.equal(open_to_both[0], open_to_both[1])
    boxes = torch.tensor([[0.0, 0, 10, 10], [20.0, 20, 30, 30]])
    masks = torch.zeros(2, 40, 24, dtype=torch.long)
    masks[0, 0, 0] = masks[1, 1, 1] = 1
    dog = {"scores": torch.tensor([0.9, 0.4]), "boxes": boxes, "masks": masks}
    cat = {"scores": torch.tensor([0.8, 0.6]), "boxes": boxes, "masks": masks}
    found = load(model, nms=0.8)._compete([dog, cat], torch.Size((40, 24)))
    assert found[0].nonzero().tolist() == [[0, 0]] and found[1].nonzero().tolist() == [[1, 1]]


def test_a_noun_longer_than_its_text_encoder_reads_is_cut_off(model: Path) -> None:
    segmenter = load(model)
    long, cut = (segmenter.masks(images(1), [["ball " * count]])[0] for count in (100, 60))
    assert torch.equal(long, cut)


def test_what_is_no_number_is_no_missing_object(model: Path) -> None:
    segmenter = load(model)
    for weight in segmenter.model.vision_encoder.parameters():
        weight.fill_(float("nan"))
    with pytest.raises(NotFinite, match=r"SAM 3: 2 of 2 results are no finite numbers"):
        segmenter.masks(images(1), [["ball", "cube"]])


def test_nothing_found_is_an_empty_mask(model: Path) -> None:
    masks = load(model, threshold=1.0).masks(images(1), [["ball", "cube"]])
    assert tuple(masks[0].shape) == (2, 40, 24) and not masks[0].any()


def test_the_published_weights_are_those_of_the_video_model(model: Path, tmp_path: Path) -> None:
    """They hold a tracker as well, and the detector under a name of its own."""
    shutil.copytree(model, tmp_path / "video")
    weights = load_file(tmp_path / "video/model.safetensors")
    tracker = {"tracker_model.x": torch.zeros(1), "tracker_neck.x": torch.zeros(1)}
    save_file(
        {**{f"detector_model.{k}": v for k, v in weights.items()}, **tracker}, tmp_path / "video/model.safetensors"
    )
    config = json.loads((tmp_path / "video/config.json").read_text())
    (tmp_path / "video/config.json").write_text(json.dumps({"model_type": "sam3_video", "detector_config": config}))
    expected, found = (load(folder, 0.1).masks(images(1), [["ball"]])[0] for folder in (model, tmp_path / "video"))
    assert expected.any() and torch.equal(expected, found)


def test_half_precision_sees_and_float32_decides(model: Path) -> None:
    segmenter = Sam3(str(model), None, Limits(0.1, 0.5, 0.9), CPU, torch.bfloat16)
    exact = load(model, 0.1, nms=0.9).masks(images(1), [["ball"]])[0]
    assert (
        segmenter.model.vision_encoder.dtype == torch.bfloat16 and segmenter.model.detr_encoder.dtype == torch.float32
    )
    assert (segmenter.masks(images(1), [["ball"]])[0] == exact).float().mean() > 0.8


def test_the_parameters_choose_it(make_params, model: Path, tiny: Path) -> None:
    own = {"segmenter": "sam3", "segmenter_model": str(model)}
    with pytest.raises(ValueError, match="sam3 is null: expected its section, since segmenter is sam3"):
        make_params(**own)
    params = make_params(**own, sam3={"threshold": 0.3, "nms_threshold": 0.8})
    segmenter = load_segmenter(params, CPU, torch.float32)
    assert isinstance(segmenter, Sam3) and segmenter.limits == Limits(0.3, 0.5, 0.8)
    (named,) = [one for one in named_models(params) if "segmenter" in one.key or "sam" in one.key]
    assert named.kinds == ("sam3", "sam3_video") and named.files == ()
    with pytest.raises(UserError, match="SAM 3"):
        load(tiny / "clipseg")


@pytest.mark.slow
def test_nothing_of_grounded_sam_loads_where_it_is_not_chosen(model: Path, tiny: Path) -> None:
    code = f"""
import sys, torch
from comat.params import Sam3Params, SegmenterParams
from comat.segmenters.load import load_segmenter
for segmenter, folder in (("sam3", {str(model)!r}), ("clipseg", {str(tiny / "clipseg")!r})):
    own = SegmenterParams(segmenter=segmenter, segmenter_model=folder, segmenter_revision=None, segmenter_threshold=0.5,
        grounded_sam=None, sam3=Sam3Params(threshold=0.3, nms_threshold=0.8))
    load_segmenter(own, torch.device("cpu"), torch.float32)
print(sorted(name for name in sys.modules if name.partition(".")[0] in ("groundingdino", "segment_anything")
    or name.startswith("comat.segmenters.ground")))
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


@pytest.mark.parametrize("size", SIZES)
def test_the_benchmark_s_sizes_are_of_the_published_weights(size: int) -> None:
    """840 M weights at each; features of 4, 2, 1 and half a cell for each of the size / 14 patches a side."""
    with torch.device("meta"), torch.no_grad():
        model = Sam3Model(sam3_config(size)).eval()
        seen = model.get_vision_features(torch.empty(1, 3, size, size))
    assert sum(weight.numel() for weight in model.parameters()) / 1e6 == pytest.approx(840.4, abs=0.1)
    sides = [size // 14 * 4, size // 14 * 2, size // 14, size // 28]
    assert [tuple(level.shape) for level in seen.fpn_hidden_states] == [(1, 256, side, side) for side in sides]
    assert model.config.vision_config.backbone_feature_sizes == [[side, side] for side in sides[:3]]
