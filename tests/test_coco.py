"""Real images as they come: damaged, grey, rotated, for print; and latents that decode to them."""

from __future__ import annotations

import errno
import io
import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL
from PIL import Image
from ruamel.yaml import YAML

from comat.corpora.pictures.listed import Picture, Place
from comat.corpora.pictures.photos import Photo, Tally, fit, read_photos
from comat.corpora.pictures.photos import read_photo as photo_of
from comat.corpora.pictures.read import choose, pictures_in, state_of
from comat.errors import UserError
from comat.params import ImageLatentsParams, load
from comat.storage.tensor_store import TensorStore, TensorStoreWriter
from tests.conftest import ROOT, run

RED, BLUE = (220, 30, 30), (30, 30, 220)


def read_photo(folder: Path, name: str, caption: str, size: int) -> Photo:
    return photo_of(Picture(name, caption, Place(folder / name)), size)


def halves(width: int = 48, height: int = 24) -> Image.Image:
    """Red on the left, blue on the right."""
    image = Image.new("RGB", (width, height), RED)
    image.paste(BLUE, (width // 2, 0, width, height))
    return image


def colours(image: torch.Tensor) -> list[tuple[int, ...]]:
    """Of the left, right, upper and lower edge's middle, rounded to tens."""
    middle = image.shape[-1] // 2
    found = [image[:, middle, 0], image[:, middle, -1], image[:, 0, middle - 2], image[:, -1, middle - 2]]
    return [tuple(int(v) for v in (edge * 25.5).round() * 10) for edge in found]


def test_the_centre_is_cut_out_and_nothing_is_squeezed() -> None:
    """48x24 at 12 px: half its size, then the middle 12 of 24 columns. A 12 px wide green stripe becomes 6 px wide."""
    image = halves()
    image.paste((0, 255, 0), (18, 0, 30, 24))
    row = fit(image, 12)[1, 6]
    assert (row > 0.5).int().tolist() == [0, 0, 0, 1, 1, 1, 1, 1, 1, 0, 0, 0]


@pytest.mark.parametrize(("orientation", "edges"), [(1, "left"), (3, "right"), (6, "up"), (8, "down")])
def test_images_are_turned_upright(tmp_path: Path, orientation: int, edges: str) -> None:
    """Where the camera says that it was held askew, red comes to lie where the photographer saw it."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    halves(24, 24).save(tmp_path / "a.png", exif=exif)
    photo = read_photo(tmp_path, "a.png", "", 24)
    red = ["left", "right", "up", "down"].index(edges)
    assert colours(photo.image)[red] == (220, 30, 30)
    assert photo.converted == (() if orientation == 1 else ("rotated",))


@pytest.mark.parametrize(
    ("mode", "suffix", "converted"),
    [("L", "jpg", "greyscale"), ("1", "png", "greyscale"), ("CMYK", "jpg", "CMYK"), ("P", "png", None)],
)
def test_other_modes_become_rgb(tmp_path: Path, mode: str, suffix: str, converted: str | None) -> None:
    """A palette is RGB by another name. Grey stays grey, and print colours keep their hue."""
    halves().convert(mode).save(tmp_path / f"a.{suffix}")
    photo = read_photo(tmp_path, f"a.{suffix}", "", 24)
    assert photo.image.shape == (3, 24, 24)
    assert photo.converted == ((converted,) if converted else ())
    left = photo.image[:, 12, 2]
    assert (left.max() - left.min() < 0.02) if converted == "greyscale" else left.argmax() == 0


def test_what_is_transparent_shows_white(tmp_path: Path) -> None:
    """The hidden colour of a transparent pixel is an accident of the program that wrote it."""
    Image.new("RGBA", (8, 8), (255, 0, 0, 0)).save(tmp_path / "a.png")
    photo = read_photo(tmp_path, "a.png", "", 8)
    assert photo.image.min() == 1
    assert photo.converted == ("transparent",)


def test_small_images_are_enlarged_and_counted(tmp_path: Path) -> None:
    halves(10, 8).save(tmp_path / "a.png")
    assert read_photo(tmp_path, "a.png", "", 16).converted == ("enlarged",)


def damaged(path: Path) -> dict[str, bytes]:
    """Bytes of files that are no whole images."""
    data = io.BytesIO()
    noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)
    Image.fromarray(noise).save(data, "JPEG")
    jpeg = data.getvalue()
    return {"text": b"no image", "empty": b"", "truncated": jpeg[: len(jpeg) // 2], "header": jpeg[:20]}


@pytest.mark.parametrize("kind", ["text", "empty", "truncated", "header"])
def test_damaged_images_are_skipped(tmp_path: Path, kind: str) -> None:
    (tmp_path / "a.jpg").write_bytes(damaged(tmp_path)[kind])
    assert read_photo(tmp_path, "a.jpg", "c", 16) == Photo("a.jpg", "c", skipped="unreadable")


def test_missing_deep_and_monstrous_images_are_skipped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert read_photo(tmp_path, "a.png", "c", 16).skipped == "missing"
    halves().save(tmp_path / "a.png")
    Image.fromarray(np.full((8, 8), 300, np.uint16)).save(tmp_path / "deep.png")
    assert read_photo(tmp_path, "deep.png", "c", 16).skipped == "more than 8 bits"
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    assert read_photo(tmp_path, "a.png", "c", 16).skipped == "too large"


def test_a_failing_disk_is_no_damaged_image() -> None:
    """A process's memory stands for it: at its start nothing can be read, and the system says so by a number."""
    with pytest.raises(OSError) as error:
        read_photo(Path("/proc/self"), "mem", "c", 16)
    assert error.value.errno == errno.EIO


def test_photos_come_in_order_and_those_done_are_only_counted(tmp_path: Path) -> None:
    """More of them than are read ahead."""
    for i in range(100):
        Image.new("L" if i % 2 else "RGB", (8, 8), i).save(tmp_path / f"{i}.png")
    pictures, tally = [Picture(f"{i}.png", str(i), Place(tmp_path / f"{i}.png")) for i in range(100)], Tally()
    wanted = list(tally.wanted(read_photos(pictures, 8, done={f"{i}.png" for i in range(10)})))
    assert [photo.caption for photo in wanted] == [str(i) for i in range(10, 100)]
    assert round(float(wanted[1].image[0, 0, 0]) * 255) == 11
    assert tally.report() == {"stored": 100, "skipped": {}, "converted": {"greyscale": 50}}


def listing(folder: Path, images: list[dict], annotations: list[dict]) -> Path:
    (folder / "captions.json").write_text(json.dumps({"images": images, "annotations": annotations}))
    return folder / "captions.json"


def test_one_caption_an_image_is_drawn_by_seed(tmp_path: Path) -> None:
    images = [{"id": i, "file_name": f"{i}.jpg"} for i in range(40)]
    said = [{"image_id": i, "caption": f" {word}\n cat"} for i in range(38) for word in "ab"]
    file = listing(tmp_path, images, [*said, {"image_id": 38, "caption": " "}])
    found = pictures_in(tmp_path, file, 0)
    assert found.without == 2  # one has none, one only blanks
    assert [one.name for one in found.pictures] == sorted(f"{i}.jpg" for i in range(38))
    assert {one.caption for one in found.pictures} == {"a cat", "b cat"}
    assert found == pictures_in(tmp_path, file, 0) != pictures_in(tmp_path, file, 1)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "no such file"),
        ("{", "not a COCO captions file"),
        ('{"images": []}', "annotations"),
        ('{"images": [], "annotations": [{"image_id": 7, "caption": "a"}]}', "image 7, which `images` does not list"),
        ('{"images": [{"id": 1, "file_name": "a"}], "annotations": [{"image_id": 1}]}', "annotations.0.caption: Field"),
        (
            '{"images": [{"id": [], "file_name": "a"}], "annotations": []}',
            "images.0.id: Input should be a",
        ),
        ('{"images": [{"id": 1, "file_name": null}], "annotations": []}', "images.0.file_name: Input should be"),
    ],
)
def test_bad_captions_files_are_named(tmp_path: Path, text: str | None, message: str) -> None:
    if text is not None:
        (tmp_path / "captions.json").write_text(text)
    with pytest.raises(UserError, match=rf"captions\.json.*{message}"):
        pictures_in(tmp_path, tmp_path / "captions.json", 0)


def section(**changes: object) -> ImageLatentsParams:
    return ImageLatentsParams.model_validate({"count": 0, "batch_size": 2, "shard_size": 4, **changes})


def test_a_missing_folder_is_named_and_none_is_allowed(tmp_path: Path, make_params) -> None:
    file = listing(tmp_path, [{"id": 1, "file_name": "a"}], [{"image_id": 1, "caption": "a"}])
    with pytest.raises(UserError, match=r"nowhere: no such folder; expected a captions JSON of COCO"):
        choose(section(images=str(tmp_path / "nowhere"), captions=str(file)), 0)
    assert choose(section(images=None, captions=None), 0).pictures == []
    with pytest.raises(ValueError, match="expected both, or null for captions too"):
        section(images=None, captions="a")
    values = make_params().model_dump()["image_latents"] | {"images": None, "captions": None}
    with pytest.raises(ValueError, match="image_batch is 2: expected 0"):
        make_params(image_latents=values)
    assert make_params(image_latents=values, image_batch=0).image_latents.images is None


@pytest.fixture
def world(tmp_path: Path) -> Path:
    """A project folder with the shapes world's own autoencoder and ten renders, two of them damaged."""
    from comat.shapes.world.corpora import write_coco

    write_coco(tmp_path / "coco", count=10, size=128)
    for victim in sorted((tmp_path / "coco/train2017").iterdir())[2:4]:
        victim.write_bytes(b"no image")
    values = YAML(typ="safe").load((ROOT / "params.yaml").read_text())
    for key in ("base_model", "captioner_model", "segmenter_model", "discriminator_model"):
        values[key] = str(ROOT / values[key])
    values["evaluate"]["frechet"] = None
    values["image_latents"] |= {"images": "coco/train2017", "batch_size": 3, "shard_size": 4}
    values["image_latents"] |= {"captions": "coco/annotations/captions_train2017.json"}
    YAML().dump(values, tmp_path / "params.yaml")
    run("models", tmp_path)
    return tmp_path


def test_a_stored_latent_decodes_to_its_image(world: Path) -> None:
    """As well as the autoencoder's own way there and back, by its own code; and that is within a few grey levels."""
    run("image_latents", world)
    store, vae = TensorStore(world / "data/image_latents"), ROOT / "data/shapes/models/base/vae"
    own = AutoencoderKL.from_pretrained(vae)
    assert len(store.ids) == 8
    for name in store.ids:
        image = fit(Image.open(world / "coco/train2017" / name), 64)[None]
        z = store[name]["latents"][None] / own.config.scaling_factor + (own.config.shift_factor or 0)
        with torch.no_grad():
            ours = own.decode(z).sample / 2 + 0.5
            theirs = own.decode(own.encode(image * 2 - 1).latent_dist.mode()).sample / 2 + 0.5
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-3)
        assert (ours - image).abs().mean() < 0.02


def test_a_run_that_was_cut_off_ends_with_the_same_bytes(world: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The disk fills up after the first shard; the second run finds it, and counts as if nothing had been."""
    run("image_latents", world)
    shutil.move(world / "data/image_latents", world / "whole")
    flush, written = TensorStoreWriter._flush, []

    def full(writer: TensorStoreWriter) -> None:
        if written:
            raise OSError(errno.ENOSPC, "No space left on device")
        written.append(writer)
        flush(writer)

    with monkeypatch.context() as patch:
        patch.setattr(TensorStoreWriter, "_flush", full)
        with pytest.raises(SystemExit):
            run("image_latents", world)
    assert not (world / "data/image_latents").exists()
    run("image_latents", world)
    for file in sorted((world / "whole").iterdir()):
        assert (world / "data/image_latents" / file.name).read_bytes() == file.read_bytes(), file.name
    report = json.loads((world / "whole/report.json").read_text())
    assert (report["stored"], report["skipped"]) == (8, {"unreadable": 2})


def test_a_run_that_was_cut_off_sees_another_image_of_the_same_name(
    world: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And one that could not be read, mended; what was stored of the first run is of no use then."""
    monkeypatch.chdir(world)
    pictures = choose(load("params.yaml").image_latents, 0).pictures
    names, before = [picture.name for picture in pictures], state_of(pictures)
    image = world / "coco/train2017" / names[0]
    shutil.copy(world / "coco/train2017" / names[1], image)
    os.utime(image, ns=(0, 0))
    after = state_of(pictures)
    assert [a == b for a, b in zip(before, after, strict=True)] == [False] + [True] * (len(names) - 1)
    image.unlink()
    assert state_of(pictures)[0] != after[0]


def test_without_a_folder_the_store_is_empty(world: Path) -> None:
    values = YAML(typ="safe").load((world / "params.yaml").read_text())
    values["image_latents"] |= {"images": None, "captions": None}
    YAML().dump({**values, "image_batch": 0}, world / "params.yaml")
    run("image_latents", world)
    assert TensorStore(world / "data/image_latents").ids == []
