"""Images with captions in the layouts that people have, the smallest folder of each; what is wrong is named."""

from __future__ import annotations

import io
import json
import os
import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image, ImageCms

from comat.corpora.pictures.listed import Picture, Place
from comat.corpora.pictures.photos import Tally, check_lost, fit, read_photo, read_photos
from comat.corpora.pictures.read import choose, pictures_in
from comat.errors import UserError
from comat.params import ImageLatentsParams
from tests.conftest import run

RED, BLUE = (220, 30, 30), (30, 30, 220)


def picture(path: Path, colour: tuple[int, int, int] = RED) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (12, 8), colour).save(path)


def side(folder: Path) -> tuple[Path, None]:
    """As kohya's scripts and SimpleTuner have it; folders within, text files of either name, an image without."""
    for name in ("10_pots/kettle.png", "10_pots/cup.JPG", "alone.webp"):
        picture(folder / name)
    (folder / "10_pots/kettle.txt").write_bytes(b"\xef\xbb\xbfa teal kettle  on a \xe2\x80\x9cstool\xe2\x80\x9d\r\n")
    (folder / "10_pots/cup.caption").write_text("\na cup\n")
    (folder / "notes.txt").write_text("not about an image")
    return folder, None


def imagefolder(folder: Path) -> tuple[Path, None]:
    for name in ("train/10_pots/kettle.png", "train/10_pots/cup.JPG", "train/alone.webp"):
        picture(folder / name)
    rows = [
        {"file_name": "10_pots/kettle.png", "text": 'a teal kettle on a "stool"', "more": 1},
        {"file_name": "10_pots/cup.JPG", "text": ["a cup", " "]},
        {"file_name": "alone.webp", "text": None},
    ]
    (folder / "train/metadata.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return folder / "train", None


def parquet(folder: Path) -> tuple[Path, None]:
    """As the imagefolder, with columns that are no captions."""
    images, _ = imagefolder(folder)
    rows = map(json.loads, (images / "metadata.jsonl").read_text().splitlines())
    texts = [{**row, "text": ["".join(row["text"] or "")], "more": 1} for row in rows]  # a column has one type
    pq.write_table(pa.Table.from_pylist(texts), images / "metadata.parquet")
    (images / "metadata.jsonl").unlink()
    return images, None


def table(folder: Path) -> tuple[Path, Path]:
    """The same as a CSV elsewhere, whose file names are relative to the folder of images."""
    images, _ = imagefolder(folder)
    (images / "metadata.jsonl").unlink()
    lines = ["file_name,caption", '10_pots/kettle.png,"a teal kettle on a ""stool"""', "10_pots/cup.JPG,a cup"]
    (folder / "mine.csv").write_text("\n".join([*lines, "alone.webp,"]))
    return images, folder / "mine.csv"


def karpathy(folder: Path) -> tuple[Path, Path]:
    images, _ = imagefolder(folder)
    said = {"kettle.png": ['a teal kettle on a "stool"'], "cup.JPG": ["a cup"]}
    rows = [
        {"filepath": "10_pots", "filename": name, "split": "train", "imgid": 0, "sentences": [{"raw": t} for t in own]}
        for name, own in said.items()
    ]
    rows.append({"filename": "alone.webp", "split": "val", "sentences": []})
    (folder / "dataset_coco.json").write_text(json.dumps({"dataset": "coco", "images": rows}))
    return images, folder / "dataset_coco.json"


def coco(folder: Path) -> tuple[Path, Path]:
    """With a byte-order mark before it."""
    images, _ = imagefolder(folder)
    names = ["10_pots/kettle.png", "10_pots/cup.JPG", "alone.webp"]
    said = [{"image_id": 0, "caption": "a teal\nkettle on a “stool”"}, {"image_id": 1, "caption": "a cup"}]
    tables = {"images": [{"id": i, "file_name": name} for i, name in enumerate(names)], "annotations": said}
    (folder / "coco.json").write_bytes(b"\xef\xbb\xbf" + json.dumps(tables).encode())
    return images, folder / "coco.json"


def add(archive: tarfile.TarFile, name: str, data: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(data)
    archive.addfile(member, io.BytesIO(data))


def webdataset(folder: Path) -> tuple[Path, None]:
    """Captions as text and as JSON."""
    images, _ = imagefolder(folder / "unpacked")
    (folder / "tars").mkdir()
    with tarfile.open(folder / "tars/000.tar", "w") as archive:
        add(archive, "10_pots/kettle.png", (images / "10_pots/kettle.png").read_bytes())
        add(archive, "10_pots/kettle.txt", b'a teal kettle on a "stool"')
        add(archive, "10_pots/kettle.json", b'{"width": 12}')
        add(archive, "10_pots/cup.JPG", (images / "10_pots/cup.JPG").read_bytes())
        add(archive, "10_pots/cup.json", b'{"caption": "a cup"}')
        add(archive, "alone.webp", (images / "alone.webp").read_bytes())
    return folder / "tars", None


LAYOUTS: list[tuple[Callable[[Path], tuple[Path, Path | None]], str, str]] = [
    (side, "text files beside the images", ""),
    (imagefolder, "imagefolder", ""),
    (parquet, "imagefolder", ""),
    (table, "a table", ""),
    (karpathy, "Karpathy's JSON", ""),
    (coco, "COCO's JSON", ""),
    (webdataset, "webdataset", "000.tar/"),
]


@pytest.mark.parametrize(("make", "layout", "prefix"), LAYOUTS)
def test_a_layout_is_read(tmp_path: Path, make: Callable, layout: str, prefix: str) -> None:
    """Captions in one spelling, an image without any counted, and the pixels of the files."""
    images, captions = make(tmp_path)
    found = pictures_in(images, captions, 0)
    assert found.layout == layout and found.without == 1
    assert [(one.name, one.caption) for one in found.pictures] == [
        (f"{prefix}10_pots/cup.JPG", "a cup"),
        (f"{prefix}10_pots/kettle.png", 'a teal kettle on a "stool"'),
    ]
    for photo in read_photos(found.pictures, 8):
        assert photo.skipped is None
        torch.testing.assert_close(photo.pixels[:, 4, 4] * 255, torch.tensor(RED).float(), rtol=0, atol=3)


def test_a_tar_file_is_a_set_by_itself(tmp_path: Path) -> None:
    images, _ = webdataset(tmp_path)
    (images / "metadata.txt").write_text("")
    assert pictures_in(images / "000.tar", None, 0) == pictures_in(images, None, 0)


def test_images_that_a_tar_file_s_names_leave_out_are_counted_and_said(tmp_path: Path, capsys) -> None:
    """A sample's name ends at the first dot: `my` has no image, `0001` and `a` have one more. Hidden ones are none."""
    names = ["a.jpg", "a.png", "my.photo.jpg", "0001.seg.png", "b.webp", "._a.jpg"]
    with tarfile.open(tmp_path / "000.tar", "w") as archive:
        for name in names:
            add(archive, name, b"an image")
        add(archive, "a.txt", b"a cup")
        add(archive, "my.photo.txt", b"a pot")
    found = pictures_in(tmp_path, None, 0)
    assert [(one.name, one.caption) for one in found.pictures] == [("000.tar/a.jpg", "a cup")]
    assert found.without == 4  # all but a.jpg and the hidden one
    assert capsys.readouterr().err.splitlines() == [
        f"{tmp_path}: 1 images are left out, 000.tar/a.png first: another image of the same sample stands before them",
        f"{tmp_path}: 2 images are left out, 000.tar/0001.seg.png first: webdataset ends a sample's name at the first "
        "dot; rename those that are samples of their own",
    ]


def test_a_tar_file_of_dotted_names_alone_is_refused_with_the_reason(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "000.tar", "w") as archive:
        add(archive, "my.photo.jpg", b"an image")
        add(archive, "my.photo.txt", b"a pot")
    with pytest.raises(UserError, match=r"none of 1 images has a caption \(1 images are left out, .*at the first dot"):
        pictures_in(tmp_path, None, 0)


def test_every_line_of_a_side_text_is_a_caption(tmp_path: Path) -> None:
    for i in range(40):
        picture(tmp_path / f"{i}.png")
        (tmp_path / f"{i}.txt").write_text("a cat\n\na dog\n")
    assert {one.caption for one in pictures_in(tmp_path, None, 0).pictures} == {"a cat", "a dog"}


def test_karpathys_splits(tmp_path: Path) -> None:
    images, file = karpathy(tmp_path)
    rows = json.loads(file.read_text())["images"]
    rows[0]["split"] = "restval"
    rows[2]["sentences"] = [{"raw": "a pot"}]
    file.write_text(json.dumps({"images": rows}))
    names = {split: [one.name for one in pictures_in(images, file, 0, split).pictures] for split in ("train", "val")}
    assert names == {"train": ["10_pots/cup.JPG", "10_pots/kettle.png"], "val": ["alone.webp"]}
    with pytest.raises(UserError, match=r"no image of split 'dev': expected one of \['restval', 'train', 'val'\]"):
        pictures_in(images, file, 0, "dev")
    with pytest.raises(UserError, match="only captions files of Karpathy's form"):
        pictures_in(images, None, 0, "val")


AWAY = ["../secret.png", "/etc/secret.png", "a/../../secret.png", "C:\\secret.png", "..\\secret.png", ""]


@pytest.mark.parametrize("name", AWAY)
def test_a_listing_cannot_lead_out_of_its_folder(tmp_path: Path, name: str) -> None:
    """Into no place where it would read what it has no business with."""
    message = "expected a path inside"
    images, file = coco(tmp_path / "coco")
    file.write_text(json.dumps({"images": [{"id": 1, "file_name": name}], "annotations": []}))
    with pytest.raises(UserError, match=rf"coco\.json.*{message}"):
        pictures_in(images, file, 0)
    images, file = karpathy(tmp_path / "karpathy")
    file.write_text(json.dumps({"images": [{"filename": name, "sentences": [{"raw": "a"}]}]}))
    with pytest.raises(UserError, match=rf"dataset_coco\.json.*{message}"):
        pictures_in(images, file, 0)
    images, _ = imagefolder(tmp_path / "imagefolder")
    (images / "metadata.jsonl").write_text("\n" + json.dumps({"file_name": name, "text": "a"}))
    with pytest.raises(UserError, match=rf"metadata\.jsonl, line 2.*{message}"):
        pictures_in(images, None, 0)


def twice_coco(folder: Path) -> tuple[Path, Path]:
    images, file = coco(folder)
    rows = [{"id": 1, "file_name": name} for name in ("a.png", "b.png")]
    file.write_text(json.dumps({"images": rows, "annotations": [{"image_id": 1, "caption": "a cup"}]}))
    return images, file


def twice_metadata(folder: Path) -> tuple[Path, None]:
    images, _ = imagefolder(folder)
    (images / "metadata.jsonl").write_text('{"file_name": "a.png", "text": "a"}\n{"file_name": "./a.png", "text": "b"}')
    return images, None


def twice_karpathy(folder: Path) -> tuple[Path, Path]:
    images, file = karpathy(folder)
    file.write_text(json.dumps({"images": [{"filename": "a.png", "sentences": []}] * 2}))
    return images, file


def twice_tar(folder: Path) -> tuple[Path, None]:
    with tarfile.open(folder / "a.tar", "w") as archive:
        for _ in range(2):
            add(archive, "a.txt", b"a cup")
    return folder, None


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (twice_coco, "id 1 stands twice"),
        (twice_metadata, r"line 2: '\./a\.png' stands twice; give several captions of an image as a list"),
        (twice_karpathy, "image 'a.png' stands twice"),
        (twice_tar, "member 'a.txt': stands twice"),
    ],
)
def test_what_stands_twice_is_refused(tmp_path: Path, make: Callable, message: str) -> None:
    with pytest.raises(UserError, match=message):
        pictures_in(*make(tmp_path), 0)


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("metadata.jsonl", b'{"file_name": "a.png", "text": "\\ud83d"}', r"line 1: \\ud83d is half of a character"),
        ("metadata.jsonl", b'{"file_name": "a.png", "text": 3}', "line 1: expected a caption, or a list"),
        ("metadata.jsonl", b'{"image": "a.png", "text": "a"}', "line 1: expected a file_name.*image"),
        ("metadata.jsonl", b"a cup\n", "line 1: not JSON"),
        ("metadata.parquet", b"PAR1", "not a whole Parquet file"),
        ("metadata.csv", b"file_name,text,text\na.png,a,b\n", "line 1: column 'text' stands twice"),
        ("a.txt", b"a cup\n\xff\xfe", "line 2: byte 0xff is not UTF-8"),
        ("a.tar", b"\x1f\x8b\x08 compressed", "not a whole tar file"),
        ("a.txt", b" \n", "none of 1 images has a caption; expected a captions JSON"),
        ("other.txt", b"a cup\n", "none of 1 images has a caption"),
    ],
)
def test_bad_captions_are_named(tmp_path: Path, name: str, data: bytes, message: str) -> None:
    picture(tmp_path / "a.png")
    (tmp_path / name).write_bytes(data)
    with pytest.raises(UserError, match=message):
        pictures_in(tmp_path, None, 0)


def test_nothing_with_a_caption_is_an_error_of_the_stage(project: Path, tmp_path: Path, capsys) -> None:
    """It was one of `train`, hours later."""
    (tmp_path / "captions.json").write_text('{"images": [{"id": 1, "file_name": "a.jpg"}], "annotations": []}')
    params = (project / "params.yaml").read_text()
    params = params.replace("coco/annotations/captions_train2017.json", str(tmp_path / "captions.json"))
    params = params.replace("coco/train2017", str(tmp_path))
    (tmp_path / "params.yaml").write_text(params)
    os.symlink(project / "data", tmp_path / "data")
    before = (project / "data/image_latents/report.json").read_bytes()
    with pytest.raises(SystemExit):
        run("image_latents", tmp_path)
    assert "none of 1 images has a caption" in capsys.readouterr().err
    assert (project / "data/image_latents/report.json").read_bytes() == before


def test_a_folder_that_is_half_empty_is_refused_and_what_is_left_out_said(capsys) -> None:
    check_lost("coco", 10, {})
    assert capsys.readouterr().err == ""
    check_lost("coco", 10, {"missing": 4, "unreadable": 1})
    said = "coco: 5 of 10 images with a caption are left out (4 missing, 1 unreadable)"
    assert capsys.readouterr().err == f"{said}\n"
    with pytest.raises(UserError, match=r"coco: 6 of 10 images.*expected at most 50%: complete the folder"):
        check_lost("coco", 10, {"missing": 6})


def test_entries_that_cannot_be_opened_are_counted(tmp_path: Path) -> None:
    """A folder, a pipe, a link to itself, a name that is too long, and a file that is not there."""
    (tmp_path / "folder.png").mkdir()
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "loop.png").symlink_to(tmp_path / "loop.png")
    names = ["folder.png", "pipe.png", "loop.png", "n" * 300, "absent.png"]
    tally = Tally()
    assert list(tally.wanted(read_photos([Picture(n, "", Place(tmp_path / n)) for n in names], 8))) == []
    assert tally.report()["skipped"] in (
        {"cannot be opened": 3, "missing": 2},
        {"cannot be opened": 4, "missing": 1},
    )


def profile_of(swap: bool) -> bytes:
    """An RGB profile with the primaries of sRGB, or with red and blue exchanged."""
    data = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    if swap:
        data = data.replace(b"rXYZ", b"swap").replace(b"bXYZ", b"rXYZ").replace(b"swap", b"bXYZ")
        data = bytes(data).replace("sRGB".encode("utf-16-be"), "swap".encode("utf-16-be")).replace(b"sRGB", b"swap")
    return bytes(data)


def test_colour_profiles_are_honoured(tmp_path: Path) -> None:
    """What a profile calls red and means as blue is blue; transparency stays; one that cannot be read is none."""
    Image.new("RGB", (8, 8), RED).save(tmp_path / "swapped.png", icc_profile=profile_of(True))
    Image.new("RGB", (8, 8), RED).save(tmp_path / "plain.png", icc_profile=profile_of(False))
    Image.new("RGB", (8, 8), RED).save(tmp_path / "broken.png", icc_profile=b"no profile")
    Image.new("RGBA", (8, 8), (*RED, 0)).save(tmp_path / "clear.png", icc_profile=profile_of(True))
    found = {
        name: read_photo(Picture(name, "", Place(tmp_path / f"{name}.png")), 8)
        for name in ("swapped", "plain", "broken", "clear")
    }
    colours = {name: tuple(round(v) for v in (photo.pixels[:, 4, 4] * 255).tolist()) for name, photo in found.items()}
    assert colours["plain"] == colours["broken"] == RED and colours["clear"] == (255, 255, 255)
    assert np.abs(np.subtract(colours["swapped"], BLUE)).max() <= 3
    assert {name: photo.converted for name, photo in found.items()} == {
        "swapped": ("colour profile",),
        "plain": (),
        "broken": (),
        "clear": ("transparent", "colour profile"),
    }


def test_a_grey_image_with_a_profile_of_colours_is_read_without_it() -> None:
    image = Image.new("L", (8, 8), 100)
    image.info["icc_profile"] = profile_of(True)
    assert (fit(image, 8) * 255).round().unique().tolist() == [100]


def test_a_count_is_drawn_by_seed(tmp_path: Path) -> None:
    for i in range(20):
        picture(tmp_path / f"{i}.png")
        (tmp_path / f"{i}.txt").write_text(f"cat {i}")
    values = {"images": str(tmp_path), "captions": None, "count": 5, "batch_size": 1, "shard_size": 1}
    section = ImageLatentsParams.model_validate(values)
    assert len(choose(section, 0).pictures) == 5
    assert choose(section, 0) == choose(section, 0) != choose(section, 1)
