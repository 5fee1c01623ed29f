"""Any prompt with the models of a finished run: pictures, base beside tuned, attention before and after."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from comat.diffusion.backbones import Backbone
from comat.diffusion.lora import FILE, in_turn
from comat.diffusion.sampling import attention_of, decoded, in_batches, sample_latents
from comat.errors import UserError
from comat.models.lock import pinned
from comat.params import Params
from comat.reporting.grid import comparison_grid
from comat.reporting.overlays import attention_figure
from comat.storage.images import to_bytes, write_image, write_png
from comat.tokenizers import check_length, load_tokenizers

PURPOSE = "generate"
"""Of the noise: it depends on `seed` of the parameters and the number of the image, not on the prompt."""


def generate(params: Params, data: Path, prompt: str, seeds: int, model: str, out: Path) -> None:
    """Write `<out>/<n>.png` for n below `seeds`, drawn by the base or the tuned model of a run in `data`."""
    params, backbone = _load(params, data, [prompt])
    for name in in_turn(backbone, data / "train/lora"):
        if name == model:
            for number, image in enumerate(drawn(params, backbone, [prompt], seeds)):
                write_png(out / f"{number}.png", image)


def compare(params: Params, data: Path, prompts: Sequence[str], seeds: int, out: Path) -> None:
    """Write one picture: for every prompt `seeds` images by the base and below them by the tuned model, same noise."""
    params, backbone = _load(params, data, prompts)
    images = {name: drawn(params, backbone, prompts, seeds) for name in in_turn(backbone, data / "train/lora")}
    arrays = {name: [to_bytes(image) for image in own] for name, own in images.items()}
    write_image(out, comparison_grid(prompts, arrays))


def attention(params: Params, data: Path, prompt: str, number: int, out: Path) -> None:
    """Write one picture: where each token of the prompt looks in image `number`, by the base and by the tuned model."""
    params, backbone = _load(params, data, [prompt])
    maps, images = {}, {}
    for name in in_turn(backbone, data / "train/lora"):
        maps[name], z = attention_of(backbone, params, prompt, (PURPOSE, number), PURPOSE)
        images[name] = to_bytes(decoded(backbone, z)[0])
    words = backbone.words(prompt)
    attention_figure(prompt, words, backbone.spoken(prompt), maps, images, out)


def _load(params: Params, data: Path, prompts: Sequence[str]) -> tuple[Params, Backbone]:
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
    return params, load_backbone(params.model_copy(update={"compile": False}), warmup)  # too few images to pay for it


@torch.no_grad()
def drawn(params: Params, backbone: Backbone, prompts: Sequence[str], seeds: int) -> list[Tensor]:
    """Images (3, H, W), `seeds` of each prompt, prompt after prompt."""
    rows = [(prompt, number) for prompt in prompts for number in range(seeds)]
    images: list[Tensor] = []
    for part in in_batches(rows, params.samples.batch_size, "images"):
        texts, keys = [text for text, _ in part], [(PURPOSE, number) for _, number in part]
        images += decoded(backbone, sample_latents(backbone, params, texts, keys, PURPOSE, params.resolution))
    return images
