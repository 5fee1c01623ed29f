"""CLIPScore and FID: the arithmetic against libraries and by hand, on small random models."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from safetensors.torch import save_file
from torch import nn
from torchvision.models.inception import InceptionA
from transformers import CLIPModel, CLIPProcessor

from comat.errors import UserError
from comat.evaluation.distances import RESIZED, distances
from comat.judges.benchmark import Drawn
from comat.judges.clip import Clip
from comat.judges.clip_score import ClipScore
from comat.judges.inception import Inception, build, stretch
from comat.judges.later import ready
from comat.params import BenchmarkFiles, Params
from comat.samples.prompt_files import benchmark_prompts
from comat.shapes.world.corpora import write_coco
from tests.conftest import judging_of

CPU = torch.device("cpu")


def noise_image(path: Path, seed: int, size: tuple[int, int] = (16, 16)) -> np.ndarray:
    pixels = np.random.default_rng(seed).integers(0, 256, (*size, 3), np.uint8)
    Image.fromarray(pixels).save(path)
    return pixels


def test_clip_score_is_a_hundred_times_the_cosine(tiny: Path, tmp_path: Path) -> None:
    """CLIP's logit of one image and one text is their cosine times its scale; the batch changes nothing."""
    texts = ["a red ball", "two green stars and a yellow cone", "a blue cube"]
    pixels = [noise_image(tmp_path / f"{n}.png", n, size) for n, size in enumerate([(16, 16), (20, 30), (40, 24)])]
    images = [Drawn("base", text, text, "lists", "color", 0, f"{n}.png") for n, text in enumerate(texts)]
    model, processor = CLIPModel.from_pretrained(tiny / "clip"), CLIPProcessor.from_pretrained(tiny / "clip")
    expected = []
    for image, text in zip(pixels, texts, strict=True):
        logit = model(**processor(text=text, images=Image.fromarray(image), return_tensors="pt")).logits_per_image
        expected.append(max(0.0, 100 * logit.item() / model.logit_scale.exp().item()))
    assert len(set(expected)) > 1
    for batch_size in (1, 2):
        judge = ClipScore(ready(Clip(str(tiny / "clip"), None, CPU)), batch_size)
        assert [score.value for score in judge.scores(images, tmp_path)] == pytest.approx(expected, abs=1e-3)


def test_scores_of_people_s_votes_are_clip_s_cosine_on_their_scales(tiny: Path, tmp_path: Path) -> None:
    """HPS v2 is 100 times the cosine, PickScore the model's logit; both fall below zero where the cosine does."""
    noise_image(tmp_path / "0.png", 0)
    image = Drawn("base", "a", "a red ball", "lists", "color", 0, "0.png")
    clip = Clip(str(tiny / "clip"), None, CPU)
    clip.model.logit_scale.data.fill_(math.log(50.0))
    names = ("clip_score", "hps_v2", "pick_score")

    def found() -> dict[str, float]:
        return {name: next(ClipScore(ready(clip), 1, name).scores([image], tmp_path)).value for name in names}

    before = found()
    clip.model.text_projection.weight.data.neg_()
    clip._texts.clear()
    after = found()
    assert after["hps_v2"] == pytest.approx(-before["hps_v2"]) and before["hps_v2"] != 0
    for own in (before, after):
        assert own["pick_score"] == pytest.approx(own["hps_v2"] / 2)
        assert own["clip_score"] == max(0.0, own["hps_v2"])


def test_clip_score_is_not_below_zero(tiny: Path, tmp_path: Path) -> None:
    """An image whose cosine to a text is c has -c to the text's opposite: one of the two scores 0."""
    noise_image(tmp_path / "0.png", 0)
    judge = ClipScore(ready(Clip(str(tiny / "clip"), None, CPU)), 1)
    image = Drawn("base", "a", "a red ball", "lists", "color", 0, "0.png")
    before = next(judge.scores([image], tmp_path)).value
    judge.clip().model.text_projection.weight.data.neg_()
    judge.clip()._texts.clear()
    after = next(judge.scores([image], tmp_path)).value
    assert min(before, after) == 0 < max(before, after)


def test_the_pooling_branch_leaves_the_padding_out() -> None:
    """On an image of ones every mean is 1, so the branch is the same everywhere; torchvision's sinks at the border."""
    block = build().Mixed_5b
    ones = torch.ones(1, 192, 5, 5)
    ours, theirs = block._forward(ones)[-1], InceptionA._forward(block, ones)[-1]
    torch.testing.assert_close(ours, ours[:, :, 2:3, 2:3].expand_as(ours))
    torch.testing.assert_close(ours[:, :, 2, 2], theirs[:, :, 2, 2])
    assert not torch.allclose(ours[:, :, 0, 0], theirs[:, :, 0, 0])


def test_the_last_block_takes_maxima() -> None:
    block, x = build().Mixed_7c, torch.randn(1, 2048, 4, 4, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(block._forward(x)[-1], block.branch_pool(F.max_pool2d(x, 3, 1, 1)))


@pytest.fixture(scope="module")
def inception(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with random weights of Inception, its classifier among them, as they are published."""
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("inception")
    model = build()
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight)
    weights = model.state_dict() | {"fc.weight": torch.zeros(1008, 2048), "fc.bias": torch.zeros(1008)}
    save_file(weights, folder / "inception.safetensors")
    return folder


def test_inception_reads_its_weights_and_no_others(inception: Path, tmp_path: Path) -> None:
    features = Inception(str(inception), None, "inception.safetensors")
    images = torch.randint(0, 256, (1, 3, 299, 299), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    found = features(images)
    assert found.shape == (1, 2048) and found.dtype == torch.float64 and found.std() > 0
    torch.testing.assert_close(found.float(), features.model(images / 127.5 - 1))
    save_file({"conv.weight": torch.zeros(1)}, tmp_path / "other.safetensors")
    with pytest.raises(UserError, match=r"cannot load other\.safetensors"):
        Inception(str(tmp_path), None, "other.safetensors")
    with pytest.raises(UserError, match=r"has no absent\.safetensors"):
        Inception(str(inception), None, "absent.safetensors")


def test_the_middle_of_an_image_is_taken(tmp_path: Path) -> None:
    """A wide image with black sides and a white middle is white; stretched its sides are there, a third each."""
    pixels = np.zeros((10, 30, 3), np.uint8)
    pixels[:, 10:20] = 255
    Image.fromarray(pixels).save(tmp_path / "wide.png")
    cropped, stretched = (RESIZED[name].read(tmp_path / "wide.png") for name in ("crop", "stretch"))
    assert cropped.shape == stretched.shape == (299, 299, 3) and cropped.dtype == np.uint8
    assert cropped[:, 60:-60].min() > 200  # bicubic at its border sees a little of what lies behind
    assert (stretched[:, [0, 90, 210, 298]] == 0).all()
    assert stretched[:, 110:190] == pytest.approx(255, abs=1e-3)


def test_stretching_is_bilinear_without_antialiasing_and_is_not_rounded() -> None:
    """Four columns 0, 10, 20, 30 to two: centres at 0.5 and 2.5, so 5 and 25. To three of two, 0 and 30: 0, 15, 30.

    With antialiasing the first two would be means over more than two columns.
    """
    row = Image.fromarray(np.repeat(np.array([[0, 10, 20, 30]], np.uint8)[..., None], 3, -1))
    torch.testing.assert_close(stretch(row, 2)[0, 0] * 255, torch.tensor([5.0, 25.0]))
    row = Image.fromarray(np.repeat(np.array([[0, 31]], np.uint8)[..., None], 3, -1))
    torch.testing.assert_close(stretch(row, 3)[1, 0] * 255, torch.tensor([0.0, 15.5, 31.0]))


@pytest.fixture
def fid_params(make_params, inception: Path, tmp_path: Path) -> Params:
    write_coco(tmp_path / "coco", count=3, size=24)
    values = make_params().model_dump()
    coco = {"images": "coco/train2017", "captions": "coco/annotations/captions_train2017.json", "count": 0}
    coco = {key: str(tmp_path / value) if isinstance(value, str) else 3 for key, value in coco.items()}
    values["samples"]["benchmarks"]["coco"] = coco
    own = {"inception_model": str(inception), "inception_revision": None, "inception_file": "inception.safetensors"}
    values["evaluate"] |= {"fid": own, "frechet": None, "batch_size": 2}
    return Params.model_validate(values)


@pytest.mark.slow
@pytest.mark.parametrize("resize", ["crop", "stretch"])
def test_fid_of_the_photographs_themselves_is_nothing(fid_params: Params, tmp_path: Path, resize: str) -> None:
    """Base: the photographs, in another order and beside images that do not count. Tuned: noise."""
    values = fid_params.model_dump()
    values["evaluate"]["fid"]["resize"] = resize
    fid_params = Params.model_validate(values)
    photographs = sorted((tmp_path / "coco/train2017").iterdir())
    drawn = [Drawn("base", str(n), "a", "coco", "coco", 0, str(path)) for n, path in enumerate(photographs)]
    for n in range(3):
        noise_image(tmp_path / f"{n}.png", n)
        drawn.append(Drawn("tuned", str(n), "a", "coco", "coco", 0, str(tmp_path / f"{n}.png")))
        drawn.append(Drawn("base", str(n), "a", "coco", "coco", 1, str(tmp_path / f"{n}.png")))
        drawn.append(Drawn("base", str(n), "a", "lists", "color", 0, str(tmp_path / f"{n}.png")))
    found = distances(judging_of(fid_params), drawn)["fid"]
    assert abs(found.distances["base"]) < 1e-4 < 1 < found.distances["tuned"]
    how = "" if resize == "stretch" else ", of the middle square of every photograph"
    assert found.evaluators == {"inception": f"{fid_params.evaluate.fid.inception_model}{how}"}
    assert found.counts == {"n": 3, "n_real": 3, "left_out": 0}
    photographs[0].unlink()
    with pytest.raises(UserError, match=r"FID leaves out 1 of 3 photographs: \{.*\}; expected at most 1%"):
        distances(judging_of(fid_params), drawn)


def test_a_distance_to_clean_renders_needs_prompts_of_the_world(make_params) -> None:
    drawn = [Drawn(model, "0", "a photo of Paris", "lists", "other", 0, "x.png") for model in ("base", "tuned")]
    with pytest.raises(UserError, match=r"evaluate\.frechet: expected images of prompts of the embedded shapes world"):
        distances(judging_of(make_params()), drawn)


def test_fid_without_images_of_captions_is_refused(fid_params: Params) -> None:
    drawn = [Drawn("base", "0", "a", "lists", "color", 0, "x.png")]
    with pytest.raises(UserError, match=r"evaluate\.fid: expected images of the captions of samples\.benchmarks\.coco"):
        distances(judging_of(fid_params), drawn)


def test_captions_are_drawn_one_of_each_image(fid_params: Params) -> None:
    rows = benchmark_prompts(fid_params.samples.benchmarks, 0)
    assert len(rows) == 3 and {row["source"] for row in rows} == {"coco"}


def test_prompts_of_benchmarks_come_letter_for_letter_beside_each_other(tmp_path: Path) -> None:
    """The same words in two files are two prompts: each has images of its own."""
    question = {"id": "1", "caption": "a  Dog", "question": "a dog?", "choices": ["yes", "no"], "answer": "yes"}
    (tmp_path / "tifa.json").write_text(json.dumps([question | {"element_type": "animal"}] * 2))
    dog = {"tag": "single_object", "prompt": "a  Dog", "include": [{"class": "dog", "count": 1}]}
    (tmp_path / "geneval.jsonl").write_text(json.dumps(dog))
    files = {"tifa": str(tmp_path / "tifa.json"), "geneval": str(tmp_path / "geneval.jsonl")}
    rows = benchmark_prompts(BenchmarkFiles(**files, dpg=None, coco=None), 0)
    found = [(row["text"], row["source"], row["category"], row["split"]) for row in rows]
    assert found == [("a  Dog", "tifa", "tifa", "test"), ("a  Dog", "geneval", "single_object", "test")]
    assert len({row["id"] for row in rows}) == 2
