"""CLIPSeg: as transformers has it, its images prepared as its own processor does, each image seen once."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from transformers import AutoTokenizer, CLIPSegForImageSegmentation, CLIPSegProcessor, ViTImageProcessor

from comat.errors import UserError
from comat.models.finite import NotFinite
from comat.segmenters.clipseg import ClipSeg

CPU = torch.device("cpu")
NOUNS = [["ball", "cube"], [], ["star", "ring", "ball"]]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory, tiny: Path) -> Path:
    """The tiny model with weights that make something of what they see, prepared as the published one is: bilinear."""
    folder = tmp_path_factory.mktemp("clipseg")
    clipseg = CLIPSegForImageSegmentation.from_pretrained(tiny / "clipseg")
    torch.manual_seed(0)
    with torch.no_grad():
        for weight in clipseg.parameters():
            weight.add_(torch.randn_like(weight) * 0.3)
    clipseg.save_pretrained(folder)
    AutoTokenizer.from_pretrained(tiny / "clipseg").save_pretrained(folder)
    mean, std = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
    size = {"height": 16, "width": 16}
    ViTImageProcessor(size=size, image_mean=mean, image_std=std, resample=2).save_pretrained(folder)
    return folder


def images(count: int) -> torch.Tensor:
    coarse = torch.rand(count, 3, 5, 5, generator=torch.Generator().manual_seed(0))
    return (F.interpolate(coarse, (40, 24), mode="bicubic").clamp(0, 1) * 255).round() / 255


def test_masks_are_those_of_the_model_called_by_hand(model: Path) -> None:
    """One call for each image and noun, through the model's own processor."""
    clipseg = CLIPSegForImageSegmentation.from_pretrained(model).eval()
    processor = CLIPSegProcessor(ViTImageProcessor.from_pretrained(model), AutoTokenizer.from_pretrained(model))
    expected = []
    for image, group in zip(images(3), NOUNS, strict=True):
        for noun in group:
            inputs = processor(text=noun, images=image, do_rescale=False, return_tensors="pt")
            with torch.no_grad():
                logits = clipseg(**inputs).logits.view(1, 1, 16, 16)
            expected.append(F.interpolate(logits, (40, 24), mode="bilinear")[0, 0].sigmoid())
    threshold = torch.stack(expected).median().item()
    masks = ClipSeg(str(model), None, threshold, CPU, torch.float32).masks(images(3), NOUNS)
    assert [tuple(m.shape) for m in masks] == [(2, 40, 24), (0, 40, 24), (3, 40, 24)]
    assert (torch.cat(masks) == (torch.stack(expected) > threshold)).float().mean() > 0.999


def test_what_is_no_number_is_no_missing_object(model: Path) -> None:
    segmenter = ClipSeg(str(model), None, 0.5, CPU, torch.float32)
    segmenter.model.clip.vision_model.embeddings.patch_embedding.weight.fill_(float("nan"))
    with pytest.raises(NotFinite, match=r"CLIPSeg: 5 of 5 results are no finite numbers in float32"):
        segmenter.masks(images(3), NOUNS)


def test_preprocessing_is_its_processors(model: Path) -> None:
    """Half a grey level apart on average, at most: the processor rounds a picture to whole ones after resizing."""
    segmenter = ClipSeg(str(model), None, 0.5, CPU, torch.float32)
    (image,) = images(1)
    seen = []
    segmenter.model.clip.vision_model.register_forward_pre_hook(
        lambda _, __, options: seen.append(options["pixel_values"][0]), with_kwargs=True
    )
    segmenter.masks(image[None], [["ball"]])
    picture = (image * 255).byte().permute(1, 2, 0).numpy()
    theirs = ViTImageProcessor.from_pretrained(model)(picture, return_tensors="pt").pixel_values[0]
    std = torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)
    assert ((seen[0] - theirs) * std).abs().mean() <= 0.5 / 255
    by_hand = Image.fromarray(picture).resize((16, 16), Image.Resampling.BILINEAR)
    mean = torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1)
    pixels = torch.from_numpy(np.array(by_hand)).permute(2, 0, 1) / 255
    assert (seen[0] * std + mean - pixels).abs().mean() <= 0.5 / 255


def test_a_batch_is_its_images_one_by_one_without_gradients(model: Path) -> None:
    segmenter = ClipSeg(str(model), None, 0.5, CPU, torch.float32)
    together = segmenter.masks(images(3).requires_grad_(), NOUNS)
    for image, group, masks in zip(images(3), NOUNS, together, strict=True):
        assert (segmenter.masks(image[None], [group])[0] == masks).float().mean() > 0.999 or not group
        assert not masks.requires_grad
    assert not any(weight.requires_grad for weight in segmenter.model.parameters())


def test_four_images_are_encoded_at_once(model: Path) -> None:
    segmenter = ClipSeg(str(model), None, 0.5, CPU, torch.float32)
    sizes: list[int] = []
    vision = segmenter.model.clip.vision_model
    vision.register_forward_pre_hook(lambda _, args, seen: sizes.append(len(seen["pixel_values"])), with_kwargs=True)
    found = segmenter.masks(images(6), [*NOUNS, *NOUNS])
    assert sizes == [4, 2] and [len(masks) for masks in found] == [len(group) for group in [*NOUNS, *NOUNS]]


def test_a_folder_without_weights_is_one_line(model: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="cannot load") as caught:
        ClipSeg(str(tmp_path), None, 0.5, CPU, torch.float32)
    assert "\n" not in str(caught.value)
