"""A UNet's LoRA as kohya's tools name it, which ComfyUI and A1111's web UI read too."""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch
from torch import Tensor

from comat.errors import UserError
from comat.finished.weights import Lora
from comat.models.families import Family

BASES = {"unets.StableDiffusion": "sd_v1", "unets.StableDiffusionXL": "sdxl_base_v1-0"}
"""Families that have such names → what `ss_base_model_version` calls them."""
FUSED = ("sd3.StableDiffusion3", "flux.Flux")
"""Families of which kohya's tools have other matrices than diffusers: q, k and v are one."""
_TOP = {
    "conv_in": "input_blocks.0.0",
    "conv_out": "out.2",
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
    "add_embedding.linear_1": "label_emb.0.0",
    "add_embedding.linear_2": "label_emb.0.2",
}
_RESNET = {
    "conv1": "in_layers.2",
    "conv2": "out_layers.3",
    "time_emb_proj": "emb_layers.1",
    "conv_shortcut": "skip_connection",
}
_BLOCK = re.compile(r"(down|mid|up)_block(?:s\.(\d+))?\.(resnets|attentions|downsamplers|upsamplers)\.(\d+)\.(.+)")


def check_named(family: Family, pipeline: str) -> None:
    """Raises UserError where kohya's tools have no names for what LoRA sits on in this family."""
    if family.backbone not in BASES:
        fused = "whose q, k and v are one matrix to kohya's tools"
        why = fused if family.backbone in FUSED else "of which CoMat knows no names of kohya's tools"
        raise UserError(
            f"--format kohya: for Stable Diffusion 1, 2 and XL, this base is a {pipeline}, {why}; give --format "
            "diffusers, or merged"
        )


def kohya_state(
    lora: Mapping[str, Lora], config: Mapping[str, object], family: Family
) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The weights under kohya's names, with the alpha that keeps their scale, and the file's metadata.

    Of SDXL kohya's tools name the blocks as the original code does, of SD 1 and 2 as diffusers does.

    Args:
        config: of the UNet.
    """
    state: dict[str, Tensor] = {}
    for layer, own in lora.items():
        named = original_name(layer, config) if family.backbone == "unets.StableDiffusionXL" else layer
        key, rank = f"lora_unet_{named.replace('.', '_')}", len(own.down)
        state |= {f"{key}.lora_down.weight": own.down, f"{key}.lora_up.weight": own.up}
        state[f"{key}.alpha"] = torch.tensor(float(rank))
    dims = {len(own.down) for own in lora.values()}
    metadata = {"ss_network_module": "networks.lora", "ss_base_model_version": BASES[family.backbone]}
    if family.backbone == "unets.StableDiffusion" and config.get("cross_attention_dim") == 1024:
        metadata["ss_base_model_version"] = "sd_v2"
    return state, metadata | {f"ss_network_{name}": str(max(dims)) for name in ("dim", "alpha")}


def original_name(layer: str, config: Mapping[str, object]) -> str:
    """A layer of diffusers' UNet under the name that the original code of Stable Diffusion gives it.

    There all blocks of a side are numbered through; a block of diffusers has `layers_per_block` of them and one that
    halves the size on the way down, one more on the way up.
    """
    if layer in _TOP:
        return _TOP[layer]
    found = _BLOCK.fullmatch(layer)
    if not found:
        raise UserError(f"--format kohya: {layer} has no name in the original code of Stable Diffusion")
    side, block, kind, number, rest = found[1], int(found[2] or 0), found[3], int(found[4]), found[5]
    layers = config["layers_per_block"]
    if not isinstance(layers, int):
        raise UserError(f"--format kohya: layers_per_block of the UNet is {layers}, the original code has one for all")
    if kind == "resnets":
        first, _, further = rest.partition(".")
        rest = ".".join([_RESNET.get(first, first), *([further] if further else [])])
    if side == "mid":
        return f"middle_block.{1 if kind == 'attentions' else 2 * number}.{rest}"
    start = block * (layers + 1)
    if side == "down":
        if kind == "downsamplers":
            return f"input_blocks.{1 + start + layers}.0.op"
        return f"input_blocks.{1 + start + number}.{int(kind == 'attentions')}.{rest}"
    if kind == "upsamplers":
        blocks = config["up_block_types"]
        assert isinstance(blocks, list | tuple)
        return f"output_blocks.{start + layers}.{1 + ('Attn' in blocks[block])}.{rest}"
    return f"output_blocks.{start + number}.{int(kind == 'attentions')}.{rest}"
