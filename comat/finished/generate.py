"""Any prompt with the models of a finished run: pictures, base beside tuned, attention before and after."""

from __future__ import annotations

import hashlib
import io
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from comat.diffusion.backbones import Backbone
from comat.diffusion.load import denoiser_in
from comat.diffusion.lora import FILE, in_turn
from comat.diffusion.sampling import attention_of, decoded, in_batches, sample_latents
from comat.errors import UserError, clean
from comat.models.lock import pinned
from comat.params import Params
from comat.reporting.grid import comparison_grid
from comat.reporting.overlays import attention_figure
from comat.running.workdir import sum_of
from comat.storage.images import to_bytes, write_image
from comat.storage.tables import sha256, write_bytes
from comat.tokenizers import check_length, load_tokenizers

PURPOSE = "generate"
"""Of the noise: it depends on `seed` of the parameters and the number of the image, not on the prompt."""


@dataclass(frozen=True)
class Asked:
    """What `comat generate` is asked for; None leaves what the parameters say."""

    prompt: str
    model: Literal["base", "tuned"] = "tuned"
    count: int = 4
    first: int = 0  # number of the first image
    steps: int | None = None
    guidance: float | None = None
    size: int | None = None  # px

    def within(self, params: Params) -> Params:
        changes = {"sampling_steps": self.steps, "guidance_scale": self.guidance, "resolution": self.size}
        return params.model_copy(update={key: value for key, value in changes.items() if value is not None})


def generate(params: Params, data: Path, asked: Asked, out: Path) -> list[Path]:
    """Write a PNG for each image by the base or the tuned model of the run in `data`; returns where.

    Image n has the same noise whatever else is drawn. Each file holds what it was drawn from, by which its name differs
    from others.
    """
    params, backbone = finished_model(params, data, [asked.prompt])
    params = asked.within(params)
    numbers = range(asked.first, asked.first + asked.count)
    said = _said(params, data, asked)
    written: list[Path] = []
    for name in in_turn(backbone, data / "train/lora"):
        if name == asked.model:
            for number, image in zip(numbers, drawn(params, backbone, [asked.prompt], numbers), strict=True):
                own = said | {"seed": str(number)}
                written.append(out / file_name(own))
                write_bytes(written[-1], _png(to_bytes(image), own))
    return written


def _said(params: Params, data: Path, asked: Asked) -> dict[str, str]:
    """What an image is drawn from, but for its number."""
    lora = f"and LoRA {sha256(data / 'train/lora' / FILE)[:12]}" if asked.model == "tuned" else ""
    warm = denoiser_in(data / "warmup")
    return {
        "prompt": asked.prompt,
        "model": f"{asked.model} of {_named(params.base_model, params.base_revision)} {lora}".rstrip(),
        **({"warm-up": sum_of(Path(warm))[:12]} if warm else {}),
        **({"autoencoder": _named(params.vae, params.vae_revision)} if params.vae else {}),
        "precision": params.precision,
        "sampler": params.scheduler,
        "steps": str(params.sampling_steps),
        "guidance": f"{params.guidance_scale:g}",
        "size": f"{params.resolution}x{params.resolution}",
        "run seed": str(params.seed),
        "software": f"comat {metadata.version('comat')}",
    }


def _named(model: str, revision: str | None) -> str:
    return f"{model} at {revision}" if revision else model


def file_name(said: Mapping[str, str]) -> str:
    """Readable, and another one for another image: prompt, model and number, and a sum of all that it is drawn from."""
    words = re.sub(r"\W+", "-", said["prompt"].lower()).strip("-")[:60].strip("-") or "prompt"
    drawn_from = {key: value for key, value in said.items() if key != "software"}
    digest = hashlib.sha256(repr(sorted(drawn_from.items())).encode()).hexdigest()[:6]
    return f"{words}-{said['model'].split()[0]}-{said['seed']}-{digest}.png"


def _png(image: np.ndarray, said: Mapping[str, str]) -> bytes:
    """A PNG whose text chunks say what it was drawn from."""
    chunks = PngInfo()
    for key, value in said.items():
        chunks.add_itxt(key, value)
    data = io.BytesIO()
    Image.fromarray(image).save(data, "PNG", pnginfo=chunks)
    return data.getvalue()


def strange_words(tokenizers: Sequence[PreTrainedTokenizerBase], prompt: str) -> list[str]:
    """The words that every tokenizer spells, in pieces of less than two letters: the base has hardly seen them."""
    words = re.findall(r"[^\W\d_]{3,}", prompt.lower())
    return [word for word in words if all(len(word) < 2 * len(one.tokenize(word)) for one in tokenizers)]


def compare(params: Params, data: Path, prompts: Sequence[str], seeds: int, out: Path) -> None:
    """Write one picture: for every prompt `seeds` images by the base and below them by the tuned model, same noise."""
    params, backbone = finished_model(params, data, prompts)
    images = {name: drawn(params, backbone, prompts, range(seeds)) for name in in_turn(backbone, data / "train/lora")}
    arrays = {name: [to_bytes(image) for image in own] for name, own in images.items()}
    write_image(out, comparison_grid(prompts, arrays))


def attention(params: Params, data: Path, prompt: str, number: int, out: Path) -> None:
    """Write one picture: where each token of the prompt looks in image `number`, by the base and by the tuned model."""
    params, backbone = finished_model(params, data, [prompt])
    maps, images = {}, {}
    for name in in_turn(backbone, data / "train/lora"):
        maps[name], z = attention_of(backbone, params, prompt, (PURPOSE, number), PURPOSE)
        images[name] = to_bytes(decoded(backbone, z)[0])
    words = backbone.words(prompt)
    write_bytes(out, attention_figure(prompt, words, backbone.spoken(prompt), maps, images))


def finished_model(params: Params, data: Path, prompts: Sequence[str]) -> tuple[Params, Backbone]:
    """The parameters bound to the run in `data`, and its base model.

    Raises:
        UserError: if there is no tuned model there, or a prompt is empty or too long.
    """
    from comat.diffusion.load import load_backbone

    if not all(prompt.strip() for prompt in prompts):
        raise UserError("the prompt is empty; say what to draw")
    warmup, lora = data / "warmup", data / "train/lora" / FILE
    if not lora.is_file() or not warmup.is_dir():
        raise UserError(f"{lora} and {warmup}: expected both; run `dvc repro` first")
    params = pinned(params, data / "models", "base_model", "vae")
    tokenizers = load_tokenizers(params.base_model, params.base_revision)
    for prompt in prompts:
        check_length(tokenizers, prompt)
    if strange := sorted({word for prompt in prompts for word in strange_words(tokenizers, prompt)}):
        hint = f"hint: {', '.join(strange[:5])}: the base has hardly seen such words, its tokenizer spells them"
        print(clean(hint, 300), file=sys.stderr)
    return params, load_backbone(params.model_copy(update={"compile": False}), warmup)  # too few images to pay for it


@torch.no_grad()
def drawn(params: Params, backbone: Backbone, prompts: Sequence[str], numbers: Sequence[int]) -> list[Tensor]:
    """Images (3, H, W), those with `numbers` of each prompt, prompt after prompt."""
    rows = [(prompt, number) for prompt in prompts for number in numbers]
    images: list[Tensor] = []
    for part in in_batches(rows, params.samples.batch_size, "images"):
        texts, keys = [text for text, _ in part], [(PURPOSE, number) for _, number in part]
        images += decoded(backbone, sample_latents(backbone, params, texts, keys, PURPOSE, params.resolution))
    return images
