"""A LoRA of others, on a pipeline of diffusers: to the last weight, or not at all."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Protocol

import torch
from diffusers.loaders import StableDiffusionXLLoraLoaderMixin
from torch import Tensor, nn

from comat.errors import UserError
from comat.models.loading import loaded

_SIDE = re.compile(r"(?:_lora|\.lora(?:_linear_layer)?)?[._](down|up|lora_A|lora_B)(?:\.[\w-]+)??\.weight$")
_OLD = {".to_out": ".to_out.0"} | {f".self_attn.to_{one}": f".self_attn.{one}_proj" for one in ("q", "k", "v")}
_OLD |= {".self_attn.to_out.0": ".self_attn.out_proj"}
"""Names of older files, of attention and of text encoders, in this order → today's."""
_OF = {"down": "A", "up": "B", "lora_A": "A", "lora_B": "B"}


class TakesLora(Protocol):
    """What is used of the pipelines that take LoRA."""

    @property
    def components(self) -> Mapping[str, object]: ...

    def lora_state_dict(
        self, folder: str, **options: object
    ) -> Mapping[str, Tensor] | tuple[Mapping[str, Tensor], object]: ...

    def load_lora_weights(self, folder: str, *, use_safetensors: bool) -> None: ...


def load_peer_lora(pipeline: TakesLora, lora: str) -> None:
    """Put a LoRA onto a pipeline.

    Raises:
        UserError: if it cannot be read, is not finite, or the pipeline takes other weights than it has: diffusers
            leaves out what does not fit and only warns.
    """
    if not (hasattr(pipeline, "lora_state_dict") and hasattr(pipeline, "load_lora_weights")):
        raise UserError(f"LoRA {lora!r}: {type(pipeline).__name__} takes none in diffusers; leave --lora out")
    # Of SDXL most files have the names of the original model's blocks, which only its configuration can tell.
    unet = getattr(pipeline, "unet", None) if _is_xl(pipeline) else None
    options = {"use_safetensors": True} | ({"unet_config": unet.config} if unet else {})
    said = loaded(lora, "LoRA", lambda: pipeline.lora_state_dict(lora, **options))
    state = said[0] if isinstance(said, tuple) else said
    weights = {name: value for name, value in state.items() if not name.endswith(".alpha")}
    broken = [name for name, value in weights.items() if not torch.isfinite(value).all()]
    if broken:
        raise UserError(f"LoRA {lora!r}: {len(broken)} of {len(weights)} weights are not finite, {broken[0]} first")
    loaded(lora, "LoRA", lambda: pipeline.load_lora_weights(lora, use_safetensors=True))
    given, taken = {_place(name) for name in weights}, {_place(name) for name in _taken(pipeline)}
    left, missing = sorted(given - taken), sorted(taken - given)
    if left or missing or not given:
        example = f" ({left[0]} first)" if left else f" ({missing[0]} first)" if missing else ""
        raise UserError(
            f"LoRA {lora!r}: not one of this model: of its {len(weights)} weights {len(left)} are left over, and "
            f"{len(missing)} are missing{example}; give the LoRA of this model, or the model of this LoRA"
        )


def _is_xl(pipeline: object) -> bool:
    return isinstance(pipeline, StableDiffusionXLLoraLoaderMixin)


def _taken(pipeline: TakesLora) -> Iterator[str]:
    """The names of the LoRA weights that the parts of a pipeline hold now."""
    for part, module in pipeline.components.items():
        if isinstance(module, nn.Module):
            yield from (f"{part}.{name}" for name, _ in module.named_parameters() if "lora_" in name)


def _place(name: str) -> str:
    """Where a weight stands, whoever wrote its name: `unet.….to_q A`."""
    found = _SIDE.search(name)
    if not found:  # what DoRA and biases add
        return re.sub(r"\.default_\d+", "", name).replace("_vector.weight", "_vector")
    place = name[: found.start()].replace(".text_model.", ".").replace(".processor.", ".")
    for old, new in _OLD.items():
        if place.endswith(old):
            place = place.removesuffix(old) + new
    return f"{place} {_OF[found[1]]}"
