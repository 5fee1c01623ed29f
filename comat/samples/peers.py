"""Peers: other text-to-image models, on the base's prompts and seeds."""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Protocol

import torch
from diffusers import AutoPipelineForText2Image, DiffusionPipeline
from huggingface_hub import hf_hub_download
from PIL import ExifTags, Image
from tqdm import tqdm

from comat.diffusion.backbones import backbone_class
from comat.diffusion.stock import stock_options
from comat.errors import UserError, first_line, is_out_of_memory
from comat.models.families import BY_PIPELINE, family_of, left_out
from comat.models.loading import load_model, loaded, pipeline_index
from comat.params import DRAWN_BY, DrawingParams
from comat.randomness import generator
from comat.running.device import DTYPES, choose_device
from comat.running.distributed import ALONE, Processes
from comat.running.workdir import fingerprint
from comat.samples.draw import undrawn
from comat.samples.peer_lora import load_peer_lora
from comat.samples.peer_method import MethodRun, pictures_by_method
from comat.storage.images import BROKEN, READERS, png
from comat.storage.json_files import read_json
from comat.storage.tables import IMAGE_INDEX, read_table, write_bytes, write_json, write_table
from comat.storage.yaml_files import shown

RECORD = "peer.json"
METRICS = "metrics.json"
PLAIN = ("RGB", "L", "P", "1")
"""Modes of Pillow that are read as they look, if nothing is transparent."""


@dataclass(frozen=True)
class Weights:
    """A pipeline in diffusers layout, by hub id or folder, and what replaces or joins its weights."""

    model: str
    revision: str | None = None
    unet: str | None = None  # folder of a denoiser that takes the place of its own
    lora: str | None = None  # folder of a LoRA


@dataclass(frozen=True)
class Peer:
    """Another model, by the name that results have; without weights its images were drawn elsewhere."""

    name: str
    weights: Weights | None
    method: MethodRun | None = None  # in the place of a pipeline, the run's own models by a training-free method


def check_name(name: str) -> None:
    """See that a peer may be called so.

    Raises:
        UserError: if the name is the base's or the tuned model's, or is no name of a folder.
    """
    if name in ("base", "tuned"):
        raise UserError(f"--name {name}: the table has a {name} of its own; give another --name")
    if not name.isprintable() or name.startswith(".") or set(name) & {"/", "\\"} or not 0 < len(name.strip()) <= 60:
        raise UserError(f"--name {shown(name)}: expected the name of a folder, of at most 60 characters")


class HasImages(Protocol):
    @property
    def images(self) -> list[Image.Image]: ...


class TextToImage(Protocol):
    """What the text-to-image pipelines of diffusers have in common."""

    def to(self, device: torch.device) -> object: ...

    def set_progress_bar_config(self, *, disable: bool) -> None: ...

    def __call__(self, prompt: list[str], *, generator: list[torch.Generator], **options: object) -> HasImages: ...


def draw_peer(
    drawing: DrawingParams, batch_size: int, peer: Peer, base: Path, out: Path, processes: Processes = ALONE
) -> None:
    """Draw the prompts and seeds of the folder `base` into `out`: `images/`, `index.parquet` and `peer.json`.

    Images that are there are left alone. Of the parameters the base model's own are not used. `metrics.json` goes where
    it is no longer of the images that are listed.

    Raises:
        UserError: if the model cannot be had, `out` holds images of another one or of none that is known, or there is
            no model and images lack or are not what judges read.
    """
    index = [{**row, "model": peer.name} for row in read_table(base / "index.parquet", IMAGE_INDEX)]
    weights = peer.weights and replace(peer.weights, revision=commit_of(peer.weights))
    record = _record(drawing, peer.name, weights, peer.method)
    elsewhere = weights is None and peer.method is None
    if processes.main:
        _check(record, out, index, elsewhere)
    todo = processes.from_main(lambda: undrawn(index, out))
    if todo and elsewhere:
        path = out / todo[0]["path"]
        raise UserError(f"{path}: missing, as {len(todo)} of {len(index)} images; draw them, or give --model")
    if elsewhere and processes.main:
        _see_images([out / row["path"] for row in index])
    if todo:
        # Whole batches, wherever a run was interrupted: an image's rounding may depend on those that it is drawn with.
        batches = [index[at : at + batch_size] for at in range(0, len(index), batch_size)]
        lacking = {row["path"] for row in todo}
        batches = [part for part in batches if any(row["path"] in lacking for row in part)]
        own = _drawn(drawing, peer.method, weights, processes.share(batches))
        results = processes.in_order(own, len(batches))
        title = f"samples of {peer.name}"
        for part, images in zip(tqdm(batches, desc=title, disable=not processes.main), results, strict=False):
            if not (out / RECORD).is_file():  # not before there is an image: until then the folder is nobody's
                write_json(out / RECORD, record)
            (out / METRICS).unlink(missing_ok=True)
            for row, image in zip(part, images, strict=True):
                if row["path"] in lacking:
                    write_bytes(out / row["path"], image)
    if processes.main:
        if elsewhere or not _is_index(out / "index.parquet", index):
            (out / METRICS).unlink(missing_ok=True)
        write_json(out / RECORD, record)
        write_table(out / "index.parquet", index, IMAGE_INDEX)
    processes.wait()


def commit_of(weights: Weights) -> str | None:
    """The commit of the revision; None for a folder."""
    if Path(weights.model).is_dir():
        return None
    find = functools.partial(hf_hub_download, weights.model, "model_index.json", revision=weights.revision)
    return Path(loaded(weights.model, "model_index.json", find)).parent.name


def _drawn(
    drawing: DrawingParams, method: MethodRun | None, weights: Weights | None, batches: Sequence[Sequence[dict]]
) -> Iterator[list[bytes]]:
    if method:
        return pictures_by_method(drawing, method, batches)
    assert weights
    return _pictures(drawing, load_pipeline(weights, drawing.precision), batches)


def _record(drawing: DrawingParams, name: str, weights: Weights | None, method: MethodRun | None) -> dict:
    """What draws: the weights, the parameters of sampling, and a fingerprint of both and of the files of folders.

    Of images drawn elsewhere it names no model, and nothing else is known.
    """
    if weights is None and method is None:
        return {"name": name, **dict.fromkeys(field.name for field in fields(Weights))}
    if method:
        lora = str(method.lora) if method.lora else None
        weights = Weights(drawing.base_model, drawing.base_revision, str(method.data / "warmup"), lora)
    assert weights
    own = {**asdict(weights), **(method.record(drawing) if method else {})}
    record = {"name": name, **own, **{key: getattr(drawing, key) for key in DRAWN_BY}}
    parts = (weights.model, weights.unet, weights.lora, drawing.vae if method else None)
    places = [Path(part) for part in parts if part and Path(part).exists()]
    return {**record, "fingerprint": fingerprint(record, places, code=())}


def _check(record: dict, out: Path, index: Sequence[dict], elsewhere: bool) -> None:
    """See that `out` is the peer's of this record, or nobody's yet."""
    path = out / RECORD
    if not path.is_file():
        there = len(index) - len(undrawn(index, out))
        if there and not elsewhere:
            raise UserError(
                f"{path}: missing, where {there} of {len(index)} images are, which nothing says the model of; remove "
                f"{out}, give another --name, or leave --model and --method out to judge images drawn elsewhere"
            )
        return
    found = read_json(path, dict[str, object], "the record of a peer", "remove its folder, or give --name")
    if elsewhere and all(found.get(key) == value for key, value in record.items()) and not found.get("method"):
        return  # older records claimed more
    if found != record:
        other = [key for key in record if found.get(key) != record[key]]
        raise UserError(f"{out}: holds images of another model or run ({', '.join(other)}); remove it, or give --name")


def _is_index(path: Path, index: Sequence[dict]) -> bool:
    """Whether a table is there and lists the images of `index`."""
    return path.is_file() and read_table(path, IMAGE_INDEX) == list(index)


def _see_images(paths: Sequence[Path]) -> None:
    """See that images drawn elsewhere look to every judge as they do to people, and have one size.

    Raises:
        UserError: naming the first that does not.
    """
    with ThreadPoolExecutor(READERS) as pool:
        seen = list(zip(paths, tqdm(pool.map(_seen, paths), desc="checking images", total=len(paths)), strict=True))
    odd = [(path, found) for path, found in seen if isinstance(found, str)]
    if not odd:
        sizes = Counter(found for _, found in seen if not isinstance(found, str))
        (width, height), count = sizes.most_common(1)[0]
        others = f", where {count} of {len(paths)} are {width} x {height}"
        odd = [(p, f"{found[0]} x {found[1]} px{others}") for p, found in seen if found != (width, height)]
    if odd:
        path, what = odd[0]
        raise UserError(
            f"{path}: {what}, first of {len(odd)} such of {len(paths)} images; expected 8-bit RGB or grey, nothing "
            "transparent, upright without an EXIF tag, all of one size: convert them"
        )


def _seen(path: Path) -> tuple[int, int] | str:
    """Width and height of an image, or what is wrong with it."""
    try:
        with Image.open(path) as image:
            if image.mode not in PLAIN or image.has_transparency_data:
                return f"transparent ({image.mode})" if image.has_transparency_data else f"of mode {image.mode}"
            image.load()  # to the last byte; and PNG may say behind the pixels how they are turned
            turned = image.getexif().get(ExifTags.Base.Orientation, 1)
            return f"turned by its EXIF tag (orientation {turned})" if turned != 1 else image.size
    except (*BROKEN, Image.DecompressionBombError) as error:
        return f"not readable as an image ({first_line(error)})"


def _pictures(
    drawing: DrawingParams, pipeline: TextToImage, batches: Sequence[Sequence[dict]]
) -> Iterator[list[bytes]]:
    """The PNG files of each batch of rows of `IMAGE_INDEX`."""
    pipeline.to(choose_device(drawing.device))
    pipeline.set_progress_bar_config(disable=True)
    for part in batches:
        texts = [row["text"] for row in part]
        sources = [generator(drawing.seed, "sample", row["prompt_id"], row["seed"]) for row in part]
        yield [png(image) for image in _images(pipeline, texts, sources, drawing)]


def _images(
    pipeline: TextToImage, texts: list[str], sources: list[torch.Generator], drawing: DrawingParams
) -> list[Image.Image]:
    """One image of each text.

    Raises:
        UserError: if the pipeline cannot draw so, or draws in another size than it was asked for.
    """
    kind, size = type(pipeline).__name__, drawing.resolution
    try:
        with torch.no_grad():
            images = pipeline(texts, generator=sources, **_options(pipeline, drawing, len(texts))).images
    except Exception as error:  # whatever pipelines of diffusers raise where they do not fit what is asked
        if is_out_of_memory(error):
            raise
        why = f"{type(error).__name__}: {first_line(error)}"
        raise UserError(f"{kind} cannot draw {len(texts)} images of {size} px: {why}") from error
    found = {image.size for image in images}
    if found != {(size, size)} or len(images) != len(texts):
        sizes = ", ".join(f"{width} x {height}" for width, height in sorted(found))
        raise UserError(f"{kind} drew {len(images)} images of {sizes} px, asked for {len(texts)} of {size} x {size}")
    return list(images)


def _options(pipeline: TextToImage, drawing: DrawingParams, count: int) -> dict[str, object]:
    """How a pipeline is asked for the size, the steps and the guidance of the parameters."""
    size = {"height": drawing.resolution, "width": drawing.resolution}
    guided = stock_options(type(pipeline), drawing.guidance_scale, count)
    return {**size, "num_inference_steps": drawing.sampling_steps, **guided}


def load_pipeline(weights: Weights, precision: str) -> TextToImage:
    """The pipeline with its own scheduler and without a safety checker, all weights from safetensors.

    Raises:
        UserError: if a part cannot be had, diffusers draws no images from text with its kind, or the LoRA does not fit.
    """
    model, lora, dtype = weights.model, weights.lora, DTYPES[precision]
    where = {"revision": weights.revision}
    config = loaded(model, "model_index.json", lambda: DiffusionPipeline.load_config(model, **where))
    parts: dict[str, object] = {name: None for name in ("safety_checker", "feature_extractor") if name in config}
    if "requires_safety_checker" in config:
        parts["requires_safety_checker"] = False
    index = pipeline_index(model, weights.revision)
    if known := BY_PIPELINE.get(str(index.get("_class_name"))):
        parts |= dict.fromkeys(left_out(known, index))
    if weights.unet:
        family = family_of(model, index)
        kind = backbone_class(family).DENOISER
        parts[family.denoiser] = load_model(kind, weights.unet, part=family.denoiser, dtype=dtype)
    options = {**where, "torch_dtype": dtype, "use_safetensors": True, **parts}
    pipeline = loaded(model, "pipeline", lambda: AutoPipelineForText2Image.from_pretrained(model, **options))
    if lora:
        load_peer_lora(pipeline, lora)
    return pipeline
