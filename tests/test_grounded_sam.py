"""Grounded-SAM: what it makes of boxes, by hand; boxes and masks as the libraries' own predict functions give them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import groundingdino
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from groundingdino.datasets import transforms as dino_transforms
from groundingdino.util.inference import predict
from PIL import Image
from ruamel.yaml import YAML
from segment_anything import SamPredictor, build_sam_vit_b, build_sam_vit_h
from torchvision.ops import box_convert
from transformers import BertModel, GroundingDinoProcessor, SamProcessor

from comat.errors import UserError
from comat.models.finite import NotFinite
from comat.params import Params
from comat.segmenters import sam
from comat.segmenters.grounded_sam import GroundedSam
from comat.segmenters.grounded_sam_hf import GroundingDinoHF, SegmentAnythingHF
from comat.segmenters.grounding import Boxes, Thresholds, boxes_of_nouns, caption_of, noun_weights, surest
from comat.segmenters.grounding_dino import MEAN, STD, GroundingDino, TextEncoder
from comat.segmenters.load import load_segmenter
from comat.segmenters.sam import SegmentAnything
from tests import tiny_segmenters as tiny
from tests.conftest import run

CPU = torch.device("cpu")
LIMITS = {"grounded_sam": Thresholds(0.55, 0.3, 0.8), "grounded_sam_hf": Thresholds(0.42, 0.3, 0.8)}
PAIRS = {"grounded_sam": ["cat", "fire"], "grounded_sam_hf": ["dog", "cat"]}
"""With the random weights of either, some boxes are above its threshold, and some are of either noun."""
KINDS = pytest.mark.parametrize("kind", list(LIMITS))


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("segmenters")
    tiny.save_grounding_dino(root / "dino")
    tiny.save_sam(root / "sam")
    tiny.save_grounding_dino_hf(root / "dino_hf")
    tiny.save_sam_hf(root / "sam_hf")
    return root


@pytest.fixture(scope="module")
def detector(models: Path) -> GroundingDino:
    folder = models / "dino"
    source = (str(folder), None, "detector.pth", str(folder / "config.py"), str(folder / "bert"), None)
    detector = GroundingDino.load(*source, CPU)
    detector.shortest = 64
    return detector


@pytest.fixture(scope="module")
def masker() -> SegmentAnything:
    return SegmentAnything(tiny.small_sam(), 0.5, CPU, torch.float32)


@pytest.fixture(scope="module")
def both(models: Path, detector: GroundingDino, masker: SegmentAnything) -> dict[str, GroundedSam]:
    hf = (
        GroundingDinoHF(str(models / "dino_hf"), None, CPU),
        SegmentAnythingHF(str(models / "sam_hf"), None, 0.5, CPU, torch.float32),
    )
    parts = {"grounded_sam": (detector, masker), "grounded_sam_hf": hf}
    return {kind: GroundedSam(*own, LIMITS[kind]) for kind, own in parts.items()}


def blurred(count: int, height: int = 48, width: int = 60) -> torch.Tensor:
    """Smooth random images of whole grey levels."""
    coarse = torch.rand(count, 3, 5, 5, generator=torch.Generator().manual_seed(0))
    return (F.interpolate(coarse, (height, width), mode="bicubic").clamp(0, 1) * 255).round() / 255


def test_the_caption_and_where_its_nouns_stand() -> None:
    caption, spans = caption_of(["Dog", "T.V.  set?", "ball"])
    assert caption == "dog . t v set . ball ."
    assert [caption[a:b] for a, b in spans] == ["dog", "t v set", "ball"]


def test_a_noun_is_the_mean_of_its_tokens() -> None:
    """[CLS] dog . teddy bear . fire ##man . [SEP]: tokens 1; 3 and 4; 6 and 7."""
    caption, spans = caption_of(["dog", "teddy bear", "fireman"])
    weights = noun_weights(tiny.grounding_tokenizer(), caption, spans, 12)
    expected = torch.zeros(3, 12)
    expected[0, 1] = 1
    expected[1, 3:5] = expected[2, 6:8] = 0.5
    torch.testing.assert_close(weights, expected)


def test_which_boxes_count_and_whose_they_are() -> None:
    """Tokens: first noun, second noun (two of them), a full stop."""
    weights = torch.tensor([[1.0, 0, 0, 0], [0, 0.5, 0.5, 0]])
    left, right = [0.25, 0.5, 0.5, 1.0], [0.75, 0.5, 0.5, 1.0]
    scores, boxes = zip(
        ([0.6, 0.5, 0.5, 0.1], left),  # fits the first best
        ([0.1, 0.9, 0.4, 0.1], right),  # the second: 0.65 on average
        ([0.7, 0.1, 0.1, 0.1], [0.75, 0.5, 0.5, 0.9]),  # covers 90% of a more probable box, if of another noun
        ([0.3, 0.2, 0.2, 0.1], [0.5, 0.5, 0.1, 0.1]),  # too faint
        ([0.1, 0.2, 0.2, 0.9], [0.5, 0.2, 0.1, 0.1]),  # sure of the full stop alone
        strict=True,
    )
    found = boxes_of_nouns(torch.tensor(scores), torch.tensor(boxes), weights, Thresholds(0.35, 0.25, 0.8))
    torch.testing.assert_close(found.corners, torch.tensor([[0.5, 0, 1, 1], [0, 0, 0.5, 1]]))
    assert found.nouns.tolist() == [1, 0]
    torch.testing.assert_close(found.fit, torch.tensor([0.65, 0.6]))


def test_boxes_are_those_of_the_librarys_predict(detector: GroundingDino) -> None:
    """A batch of captions of different lengths against predict, which takes one image."""
    images, captions = blurred(2), ["cat . fire .", "teddy bear ."]
    with torch.no_grad():
        scores, boxes = detector(images, captions)
        pixels = detector.preprocess(images)
    for row, caption in enumerate(captions):
        expected, probabilities, phrases = predict(detector.model, pixels[row], caption, 0.55, 0.0, "cpu")
        keep = scores[row].amax(-1) > 0.55
        assert 0 < keep.sum() < len(keep)
        torch.testing.assert_close(boxes[row][keep], expected, rtol=0, atol=1e-5)
        torch.testing.assert_close(scores[row][keep].amax(-1), probabilities, rtol=0, atol=1e-5)
        assert all(phrase.split()[1:-1] == caption.replace(".", "").split() for phrase in phrases)


def test_masks_are_the_union_of_the_librarys_own(both: dict[str, GroundedSam]) -> None:
    """Their predict for the boxes, each box to the noun whose token scores higher, their predictor for the masks."""
    segmenter, (image,) = both["grounded_sam"], blurred(1)
    segmenter = GroundedSam(segmenter.detector, segmenter.masker, Thresholds(0.55, 0.0, nms=1.0))
    model, predictor = segmenter.detector.model, SamPredictor(segmenter.masker.model)
    pixels = segmenter.detector.preprocess(image[None])[0]
    boxes, *_ = predict(model, pixels, "cat . fire .", 0.55, 0.0, "cpu")
    with torch.no_grad():
        logits = model(pixels[None], captions=["cat . fire ."])["pred_logits"][0]
    whose = logits[logits.sigmoid().amax(-1) > 0.55][:, [1, 3]].argmax(-1)
    predictor.set_torch_image(segmenter.masker.preprocess(image[None]), (48, 60))
    expected = torch.zeros(2, 48, 60, dtype=torch.bool)
    corners = box_convert(boxes * torch.tensor([60, 48, 60, 48]), "cxcywh", "xyxy")
    for noun, box in zip(whose.tolist(), corners, strict=True):
        expected[noun] |= torch.from_numpy(predictor.predict(box=box.numpy(), multimask_output=False)[0][0])
    (masks,) = segmenter.masks(image[None], [["cat", "fire"]])
    assert all(0.05 < mask.float().mean() < 0.95 for mask in masks)
    assert (masks == expected).float().mean() > 0.999


def test_preprocessing_is_the_libraries(detector: GroundingDino, masker: SegmentAnything) -> None:
    """At most half a grey level on average: theirs round to whole ones. 800 px, since theirs know no other size."""
    images = blurred(1, 96, 120)
    picture = Image.fromarray((images[0] * 255).byte().permute(1, 2, 0).numpy())
    resize = dino_transforms.RandomResize([800], max_size=1333)
    theirs = dino_transforms.Normalize(MEAN, STD)(dino_transforms.ToTensor()(resize(picture)[0], None)[0])[0]
    ours = GroundingDino(detector.model, CPU).preprocess(images)[0]
    assert ours.shape == theirs.shape == (3, 800, 1000)
    assert ((ours - theirs) * torch.tensor(STD).view(3, 1, 1)).abs().mean() < 0.5 / 255
    resized = torch.from_numpy(masker.transform.apply_image(np.asarray(picture))).permute(2, 0, 1)
    assert masker.preprocess(images)[0].shape == resized.shape == (3, 51, 64)
    assert (masker.preprocess(images)[0] - resized).abs().mean() < 0.5


def test_boxes_and_masks_are_those_of_transformers(both: dict[str, GroundedSam]) -> None:
    """Against its processors' own way from an image to boxes, and from boxes to masks."""
    segmenter, images = both["grounded_sam_hf"], blurred(1)
    detector, masker = segmenter.detector, segmenter.masker
    processor = GroundingDinoProcessor(detector.processor, detector.tokenizer)
    inputs = processor(images=images[0], text=[["dog", "cat"]], do_rescale=False, return_tensors="pt")
    options = {"threshold": 0.42, "target_sizes": [(48, 60)]}
    with torch.no_grad():
        scores, boxes = detector(images, ["dog . cat ."])
        (theirs,) = processor.post_process_grounded_object_detection(detector.model(**inputs), **options)
        keep = scores[0].amax(-1) > 0.42
        assert 0 < keep.sum() < len(keep)
        corners = box_convert(boxes[0][keep] * torch.tensor([60, 48, 60, 48]), "cxcywh", "xyxy")
        torch.testing.assert_close(corners, theirs["boxes"], rtol=0, atol=1e-3)
        asked = SamProcessor(masker.processor)(
            images[0], input_boxes=[corners.tolist()], do_rescale=False, return_tensors="pt"
        )
        out = masker.model(asked.pixel_values, input_boxes=asked.input_boxes.float(), multimask_output=False)
        sizes = (asked.original_sizes, asked.reshaped_input_sizes)
        (expected,) = masker.processor.post_process_masks(out.pred_masks, *sizes)
        (masks,) = masker(images, [corners])
    assert 0.05 < masks.float().mean() < 0.95
    assert (masks == expected[:, 0]).float().mean() > 0.999


@KINDS
def test_a_batch_is_its_images_one_by_one(both: dict[str, GroundedSam], kind: str) -> None:
    images, nouns = blurred(3), [PAIRS[kind], [], ["teddy bear"]]
    together = both[kind].masks(images, nouns)
    assert [tuple(m.shape) for m in together] == [(2, 48, 60), (0, 48, 60), (1, 48, 60)]
    assert all(0.02 < mask.float().mean() < 0.98 for mask in (*together[0], *together[2]))
    for row, group in enumerate(nouns):
        (alone,) = both[kind].masks(images[row : row + 1], [group])
        assert (alone == together[row]).float().mean() > 0.999 or not group


@pytest.mark.parametrize("kind", ["grounded_sam", "grounded_sam_hf"])
def test_what_is_no_number_is_no_missing_object(both: dict[str, GroundedSam], kind: str, monkeypatch) -> None:
    """A box is found, and its image's features have overflown."""
    masker, box = both[kind].masker, torch.tensor([[5.0, 5.0, 20.0, 20.0]])
    encoder = masker.model.image_encoder if kind == "grounded_sam" else masker.model.vision_encoder
    patches = next(part for part in encoder.modules() if isinstance(part, torch.nn.Conv2d))
    monkeypatch.setattr(patches.weight, "data", torch.full_like(patches.weight, float("nan")))
    with pytest.raises(NotFinite, match="Segment Anything: 1 of 1 results are no finite numbers"), torch.no_grad():
        masker(blurred(1), [box])


@pytest.mark.parametrize("kind", ["grounded_sam", "grounded_sam_hf"])
def test_many_boxes_are_filled_a_few_at_once(both: dict[str, GroundedSam], kind: str) -> None:
    """40 boxes in chunks of 16 have the masks that each has by itself."""
    masker, images = both[kind].masker, blurred(1)
    corners = torch.rand(40, 2, generator=torch.Generator().manual_seed(1)) * 30
    boxes = torch.cat([corners, corners + 15], 1)
    sizes: list[int] = []
    decoder = masker.model.mask_decoder
    hook = decoder.register_forward_pre_hook(
        lambda _, args, kwargs: sizes.append(kwargs["sparse_prompt_embeddings"].shape[-3]), with_kwargs=True
    )
    with torch.no_grad():
        (together,) = masker(images, [boxes])
        assert sizes == [16, 16, 8]
        alone = torch.cat([masker(images, [box[None]])[0] for box in boxes])
    hook.remove()
    assert together.shape == (40, 48, 60) and (together == alone).float().mean() > 0.999


@pytest.mark.parametrize("kind", ["grounded_sam", "grounded_sam_hf"])
def test_the_detector_sees_four_images_at_once(both: dict[str, GroundedSam], kind: str) -> None:
    sizes: list[int] = []
    detector = both[kind].detector
    hook = detector.model.register_forward_pre_hook(
        lambda _, args, seen: sizes.append(len(args[0] if args else seen["pixel_values"])), with_kwargs=True
    )
    found = both[kind].masks(blurred(6), [PAIRS[kind]] * 6)
    hook.remove()
    assert sizes == [4, 2] and [len(masks) for masks in found] == [2] * 6


def test_a_noun_has_its_surest_boxes_and_the_others_are_counted(both: dict[str, GroundedSam]) -> None:
    corners, nouns = torch.arange(24.0).view(6, 4), torch.tensor([1, 0, 1, 1, 0, 1])
    left = surest(Boxes(corners, nouns, torch.linspace(0.9, 0.4, 6)), 2)
    assert left.corners[:, 0].tolist() == [0, 4, 8, 16] and left.nouns.tolist() == [1, 0, 1, 0]
    found = both["grounded_sam"]
    loose = Thresholds(box=0.0, text=0.0, nms=1.0)
    whole, bounded = (GroundedSam(found.detector, found.masker, loose, most) for most in (900, 1))
    (all_masks,), (masks,) = (s.masks(blurred(1), [["cat", "fire"]]) for s in (whole, bounded))
    assert whole.left_out == 0 and bounded.left_out > 0
    assert (all_masks & masks).sum() == masks.sum() < all_masks.sum()


@KINDS
def test_nouns_that_are_not_there_have_empty_masks_and_nothing_has_gradients(
    both: dict[str, GroundedSam], kind: str
) -> None:
    found = both[kind]
    strict = GroundedSam(found.detector, found.masker, Thresholds(box=1.0, text=0.3, nms=0.8))
    masks = strict.masks(blurred(3).requires_grad_(), [PAIRS[kind], [], ["teddy bear"]])
    assert [tuple(m.shape) for m in masks] == [(2, 48, 60), (0, 48, 60), (1, 48, 60)]
    assert not any(m.any() or m.requires_grad for m in masks)
    weights = [*found.detector.model.parameters(), *found.masker.model.parameters()]
    assert not any(w.requires_grad for w in weights)


def test_the_text_encoder_is_bert_that_does_not_look_past_a_full_stop(detector: GroundingDino) -> None:
    bert = BertModel(tiny.bert_config()).eval()
    ids = torch.tensor([[101, 1030, 1012, 1031, 1012, 102]])
    everything = torch.ones(1, 6, 6, dtype=torch.bool)
    rest = {"token_type_ids": torch.zeros_like(ids), "position_ids": torch.arange(6)[None]}
    adapted = TextEncoder(bert)
    with torch.no_grad():
        seen = adapted(ids, attention_mask=everything, **rest)["last_hidden_state"]
        torch.testing.assert_close(seen, bert(ids).last_hidden_state)
        apart = everything.clone()
        apart[0, :3, 3:] = apart[0, 3:, :3] = False
        other = torch.where(ids == 1031, 1032, ids)
        one = adapted(ids, attention_mask=apart, **rest)["last_hidden_state"]
        two = adapted(other, attention_mask=apart, **rest)["last_hidden_state"]
    assert torch.equal(one[:, :3], two[:, :3]) and not torch.equal(one[:, 3:], two[:, 3:])
    names = detector.model.state_dict()
    assert {"bert.embeddings.word_embeddings.weight", "bert.encoder.layer.0.attention.self.query.weight"} <= set(names)


def test_no_compiled_operator_is_there() -> None:
    assert not list(Path(groundingdino.__file__).parent.rglob("*.so"))


@pytest.mark.parametrize("published", [build_sam_vit_b, build_sam_vit_h])
def test_weights_of_segment_anything_say_which_they_are(published) -> None:
    with torch.device("meta"):
        expected = published().state_dict()
        built = sam.build(expected)
    assert {k: v.shape for k, v in built.state_dict().items()} == {k: v.shape for k, v in expected.items()}
    assert built.image_encoder.blocks[0].window_size == 14


def test_an_encoder_in_half_the_precision_gives_nearly_the_same_masks(masker: SegmentAnything, models: Path) -> None:
    images, boxes = blurred(1), [torch.tensor([[5.0, 5.0, 40.0, 40.0]])]
    halves = {
        "packages": (masker, SegmentAnything(tiny.small_sam(), 0.5, CPU, torch.bfloat16)),
        "transformers": tuple(
            SegmentAnythingHF(str(models / "sam_hf"), None, 0.5, CPU, t) for t in (torch.float32, torch.bfloat16)
        ),
    }
    for full, half in halves.values():
        with torch.no_grad():
            assert (full(images, boxes)[0] == half(images, boxes)[0]).float().mean() > 0.98


@KINDS
def test_parameters_load_it(make_params, models: Path, kind: str) -> None:
    params: Params = make_params(**tiny.grounded_sam_params(models, kind))
    segmenter = load_segmenter(params, CPU, torch.float32)
    assert segmenter.limits == Thresholds(0.35, 0.25, 0.8)
    boxes = [torch.tensor([[5.0, 5.0, 40.0, 40.0]])]
    with torch.no_grad():
        assert segmenter.masker(blurred(1), boxes)[0].shape == (1, 48, 60)


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        ({"detector": "absent.pth"}, "cannot load absent.pth"),
        ({"detector": "text.pth"}, "text.pth: not readable as weights"),
        ({"detector": "code.pth"}, "code.pth: not readable as weights"),
        ({"detector": "other.pth"}, "Grounding DINO 'other.pth': weights of another model: .* are missing"),
        ({"detector": "wide.pth"}, "Grounding DINO 'wide.pth': weights of another model: size mismatch"),
        ({"detector_config": "GroundingDINO_SwinX.py"}, "expected a path or one of GroundingDINO_SwinB_cfg.py"),
        ({"text_encoder": "EMPTY"}, "cannot load the text encoder's tokenizer"),
        ({"sam": "other.pth"}, "expected weights of Segment Anything"),
    ],
)
def test_what_is_wrong_with_weights_is_one_line(make_params, models: Path, broken: dict, message: str) -> None:
    for folder in (models / "dino", models / "sam"):
        (folder / "text.pth").write_text("no weights")
        torch.save(Path("code"), folder / "code.pth")
        torch.save({"model": {"a": torch.zeros(1)}}, folder / "other.pth")
        torch.save({"model": {"feat_map.bias": torch.zeros(7)}}, folder / "wide.pth")
    values = tiny.grounded_sam_params(models, "grounded_sam")
    empty = models / "empty"
    empty.mkdir(exist_ok=True)
    values["grounded_sam"]["files"] |= {k: str(empty) if v == "EMPTY" else v for k, v in broken.items()}
    with pytest.raises(UserError, match=message) as caught:
        load_segmenter(make_params(**values), CPU, torch.float32)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("key", "message"),
    [("sam_hf", "another architecture: expected grounding-dino, found sam"), ("empty", "cannot load")],
)
def test_a_folder_of_another_model_or_none_is_one_line(make_params, models: Path, key: str, message: str) -> None:
    (models / "empty").mkdir(exist_ok=True)
    tiny.grounding_tokenizer().save_pretrained(models / "sam_hf")
    values = tiny.grounded_sam_params(models, "grounded_sam_hf") | {"segmenter_model": str(models / key)}
    with pytest.raises(UserError, match=message) as caught:
        load_segmenter(make_params(**values), CPU, torch.float32)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("kind", [pytest.param("grounded_sam", marks=pytest.mark.slow), "grounded_sam_hf"])
def test_the_train_stage_runs_with_it(project: Path, models: Path, tmp_path: Path, kind: str) -> None:
    for name in ("data", "lists", "coco"):
        shutil.copytree(project / name, tmp_path / name)
    values = YAML(typ="safe").load((project / "params.yaml").read_text())
    values |= tiny.grounded_sam_params(models, kind) | {"train_steps": 1, "alpha": 1.0}
    YAML().dump(values, tmp_path / "params.yaml")
    run("models", tmp_path)
    run("train", tmp_path)
    metrics = json.loads((tmp_path / "data/train/metrics.json").read_text())["train"]
    assert metrics["skipped"] == 0 and metrics["attribute"] != 0
