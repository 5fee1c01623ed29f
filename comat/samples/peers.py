"""Peers: other text-to-image models, on the base's prompts and seeds."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch
from diffusers import AutoPipelineForText2Image, DiffusionPipeline, UNet2DConditionModel
from huggingface_hub import hf_hub_download

from comat.diffusion.sampling import in_batches
from comat.errors import UserError
from comat.models.loading import load_model, loaded
from comat.params import Params
from comat.randomness import generator
from comat.running.device import DTYPES, choose_device
from comat.running.workdir import fingerprint
from comat.samples.draw import undrawn
from comat.storage.images import write_image
from comat.storage.json_files import read_json
from comat.storage.tables import IMAGE_INDEX, read_table, write_json, write_table


@dataclass(frozen=True)
class Peer:
    """A model in diffusers layout, by hub id or folder, and what replaces or joins its weights."""

    name: str
    model: str | None  # None: its images were drawn elsewhere
    revision: str | None = None
    unet: str | None = None  # folder of a UNet2DConditionModel that takes the place of its own
    lora: str | None = None  # folder of a LoRA


def draw_peer(params: Params, peer: Peer, base: Path, out: Path) -> None:
    """Draw the prompts and seeds of the folder `base` into `out`: `images/`, `index.parquet` and `peer.json`.

    Images that are there are left alone.

    Raises:
        UserError: if the model cannot be had, `out` holds images of another one, or there is no model and images lack.
    """
    index = [{**row, "model": peer.name} for row in read_table(base / "index.parquet", IMAGE_INDEX)]
    peer = replace(peer, revision=commit_of(peer))
    record = _record(params, peer)
    _check(record, out)
    todo = undrawn(index, out)
    if todo and peer.model is None:
        path = out / todo[0]["path"]
        raise UserError(f"{path}: missing, as {len(todo)} of {len(index)} images; draw them, or give --model")
    pipeline = load_pipeline(peer, params.precision) if todo else None
    write_json(out / "peer.json", record)
    if pipeline:
        _draw(params, pipeline, peer.name, todo, out)
    write_table(out / "index.parquet", index, IMAGE_INDEX)


def commit_of(peer: Peer) -> str | None:
    """The commit of the peer's revision; None for a folder."""
    if peer.model is None or Path(peer.model).is_dir():
        return None
    find = functools.partial(hf_hub_download, peer.model, "model_index.json", revision=peer.revision)
    return Path(loaded(peer.model, "model_index.json", find)).parent.name


def _record(params: Params, peer: Peer) -> dict:
    """What draws: the peer, the parameters of sampling, and a fingerprint of both and of the files of folders."""
    settings = {name: getattr(params, name) for name in ("seed", "resolution", "sampling_steps", "guidance_scale")}
    places = [Path(place) for place in (peer.model, peer.unet, peer.lora) if place and Path(place).exists()]
    record = {**asdict(peer), **settings, "precision": params.precision}
    return {**record, "fingerprint": fingerprint(record, places, code=())}


def _check(record: dict, out: Path) -> None:
    """See that `out` is the peer's of this record, or nobody's yet."""
    path = out / "peer.json"
    if not path.is_file():
        return
    found = read_json(path, dict[str, object], "the record of a peer", "remove its folder, or give --name")
    if found != record:
        other = [key for key in record if found.get(key) != record[key]]
        raise UserError(f"{out}: holds images of another model or run ({', '.join(other)}); remove it, or give --name")


@torch.no_grad()
def _draw(params: Params, pipeline: DiffusionPipeline, name: str, todo: Sequence[dict], out: Path) -> None:
    pipeline.to(choose_device(params.device))
    pipeline.set_progress_bar_config(disable=True)
    for part in in_batches(todo, params.samples.batch_size, f"samples of {name}"):
        images = pipeline(
            [row["text"] for row in part],
            height=params.resolution,
            width=params.resolution,
            num_inference_steps=params.sampling_steps,
            guidance_scale=params.guidance_scale,
            generator=[generator(params.seed, "sample", row["prompt_id"], row["seed"]) for row in part],
        ).images
        for row, image in zip(part, images, strict=True):
            write_image(out / row["path"], image)


def load_pipeline(peer: Peer, precision: str) -> DiffusionPipeline:
    """The pipeline with its own scheduler and without a safety checker, all weights from safetensors.

    Raises:
        UserError: if a part cannot be had, or no text-to-image pipeline of diffusers is of its kind.
    """
    model, dtype = peer.model, DTYPES[precision]
    where = {"revision": peer.revision}
    config = loaded(model, "model_index.json", lambda: DiffusionPipeline.load_config(model, **where))
    parts = {name: None for name in ("safety_checker", "feature_extractor") if name in config}
    parts |= {"requires_safety_checker": False} if "requires_safety_checker" in config else {}
    if peer.unet:
        parts["unet"] = load_model(UNet2DConditionModel, peer.unet, part="unet", dtype=dtype)
    options = {**where, "torch_dtype": dtype, "use_safetensors": True, **parts}
    pipeline = loaded(model, "pipeline", lambda: AutoPipelineForText2Image.from_pretrained(model, **options))
    if peer.lora:
        lora = peer.lora
        loaded(lora, "LoRA", lambda: pipeline.load_lora_weights(lora, use_safetensors=True))
    return pipeline
