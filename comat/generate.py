"""Any prompt, base beside tuned."""

from __future__ import annotations

import io
from pathlib import Path

import torch
from PIL import Image

from comat.diffusion.lora import FILE, load_lora, merged
from comat.diffusion.tokenizers import check_length, load_tokenizers
from comat.errors import UserError
from comat.images import to_bytes
from comat.params import Params
from comat.sampling import sample_latents
from comat.store import write_bytes


@torch.no_grad()
def generate(params: Params, prompt: str, seeds: int, unet: Path, lora: Path, out: Path) -> None:
    """Write a picture of two rows, base and tuned, one column a seed, from the same noise.

    Raises:
        UserError: if there is no tuned model yet, or the prompt is empty or too long.
    """
    from comat.training.trainer import load_backbone

    if not prompt.strip():
        raise UserError("the prompt is empty; say what to draw")
    if not (lora / FILE).is_file() or not unet.is_dir():
        raise UserError(f"{lora / FILE} and {unet}: expected both; run `dvc repro` first")
    check_length(load_tokenizers(params.base_model, params.base_revision), prompt)
    backbone = load_backbone(params, unet)
    rows = []
    for tuned in (False, True):
        if tuned:
            load_lora(backbone.unet, lora)
        with merged(backbone.unet):
            keys = [("generate", seed) for seed in range(seeds)]
            z = sample_latents(backbone, params, [prompt] * seeds, keys, "generate", params.resolution)
            rows.append(torch.cat(list(backbone.decode(z)), 2))
    data = io.BytesIO()
    Image.fromarray(to_bytes(torch.cat(rows, 1))).save(data, "PNG")
    write_bytes(out, data.getvalue())
