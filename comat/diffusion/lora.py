"""LoRA on the attention projections, in the form that diffusers loads."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from pathlib import Path

import torch
import torch.nn.functional as F
from diffusers import UNet2DConditionModel
from diffusers.utils import convert_state_dict_to_diffusers, convert_unet_state_dict_to_peft
from peft import LoraConfig
from peft.tuners.lora import Linear, LoraLayer
from peft.utils import get_peft_model_state_dict, set_peft_model_state_dict
from safetensors.torch import save
from torch import Tensor, nn

from comat.errors import UserError
from comat.storage.tables import read_safetensors, write_bytes

TARGETS = ["to_q", "to_k", "to_v", "to_out.0"]
FILE = "pytorch_lora_weights.safetensors"


class LoraLinear(Linear):
    """peft's LoRA of a linear layer, which in half precision is true to updates below the weights' rounding.

    Its weights are float32 masters; it computes in the precision of its input, and their gradients arrive in float32.
    Base and LoRA are summed before the one rounding. peft's own forward rounds the base's output first, to a grid on
    which a small update mostly changes nothing.
    """

    def forward(self, x: Tensor, *args: object, **kwargs: object) -> Tensor:
        """(B, ..., inputs) to (B, ..., outputs)."""
        if x.dtype == torch.float32 or self.merged or self.disable_adapters:
            return super().forward(x, *args, **kwargs)
        base, (name,) = self.get_base_layer(), self.active_adapters
        down, up = (part[name].get_parameter("weight").to(x.dtype) for part in (self.lora_A, self.lora_B))
        rows = x.flatten(0, -2)
        # A product is accumulated in float32, and onto what it is added to: rounded once, at the end.
        branch, weight = F.linear(F.linear(rows, down), up), base.get_parameter("weight")
        out = torch.addmm(branch, rows, weight.t(), beta=self.scaling[name])
        out = out if base.bias is None else out + base.get_parameter("bias")
        return out.unflatten(0, x.shape[:-1])


def add_lora(unet: UNet2DConditionModel, rank: int, generator: torch.Generator) -> list[nn.Parameter]:
    """Put LoRA of `rank` (scale 1) on every attention projection; returns its float32 weights.

    A is drawn from `generator` with mean 0 and standard deviation 1/rank; B is zero, so nothing changes at first.
    """
    weights = _put_lora(unet, rank)
    with torch.no_grad():
        for name, weight in weights:
            if "lora_A" in name:
                weight.copy_(torch.randn(weight.shape, generator=generator) / rank)
            else:
                weight.zero_()
    return [weight for _, weight in weights]


def _put_lora(unet: UNet2DConditionModel, rank: int) -> list[tuple[str, nn.Parameter]]:
    """LoRA on every attention projection, with names; what its weights hold is left to chance."""
    config = LoraConfig(r=rank, lora_alpha=rank, target_modules=TARGETS, init_lora_weights=False)
    config._register_custom_module({nn.Linear: LoraLinear})
    with torch.device("meta"):  # where nothing is drawn
        unet.add_adapter(config)
    for layer, base in adapted(unet):
        for part in (*layer.lora_A.values(), *layer.lora_B.values()):
            part.to(torch.float32).to_empty(device=base.device).requires_grad_(True)
    return [(name, weight) for name, weight in unet.named_parameters() if "lora_" in name]


def lora_state(unet: nn.Module) -> dict[str, Tensor]:
    """The adapter's weights under peft's names."""
    return get_peft_model_state_dict(unet)


def set_lora_state(unet: nn.Module, state: dict[str, Tensor]) -> None:
    set_peft_model_state_dict(unet, state)


def exported_names(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The adapter's weights under the names of diffusers' files."""
    return {f"unet.{name}": value for name, value in convert_state_dict_to_diffusers(state).items()}


def export_lora(unet: nn.Module, folder: Path) -> None:
    """Write `pytorch_lora_weights.safetensors`, which `load_lora_weights` of a stock pipeline reads.

    Raises:
        UserError: if a weight is not finite.
    """
    state = exported_names(lora_state(unet))
    tensors = {name: state[name].detach().cpu().contiguous() for name in sorted(state)}
    _check_finite(tensors, folder / FILE)
    write_bytes(folder / FILE, save(tensors, {"format": "pt"}))


def load_lora(unet: UNet2DConditionModel, folder: Path) -> None:
    """Put an exported LoRA onto a UNet that has none, ready for sampling.

    Raises:
        UserError: if it is not of this UNet, to the last weight: diffusers would leave out what does not fit.
    """
    path = folder / FILE
    tensors = read_safetensors(path)
    ranks = {value.shape[0] for name, value in tensors.items() if ".lora.down." in name or ".lora_A." in name}
    if len(ranks) != 1:
        raise UserError(f"{path}: expected the weights of a LoRA of one rank, found ranks {sorted(ranks)}")
    _put_lora(unet, ranks.pop())
    own = exported_names(lora_state(unet))
    missing, extra = sorted({*own} - {*tensors}), sorted({*tensors} - {*own})
    if missing or extra:
        example = f"it lacks {missing[0]}" if missing else f"it has {extra[0]}"
        raise UserError(
            f"{path}: not a LoRA of this UNet: of the {len(own)} weights that it must have {len(missing)} are missing, "
            f"and {len(extra)} are left over ({example}); train it on this base model"
        )
    wrong = next((name for name, value in own.items() if tensors[name].shape != value.shape), None)
    if wrong:
        shapes = f"expected {tuple(own[wrong].shape)}, found {tuple(tensors[wrong].shape)}"
        raise UserError(f"{path}: {wrong}: {shapes}; it was trained on another UNet")
    _check_finite(tensors, path)
    set_lora_state(unet, convert_unet_state_dict_to_peft({n.removeprefix("unet."): v for n, v in tensors.items()}))


def _check_finite(tensors: Mapping[str, Tensor], path: Path) -> None:
    broken = [name for name, value in tensors.items() if not torch.isfinite(value).all()]
    if broken:
        raise UserError(
            f"{path}: {len(broken)} of {len(tensors)} weights are not finite, {broken[0]} first; train again with a "
            "lower learning rate"
        )


def absorb_lora(unet: UNet2DConditionModel) -> None:
    """Merge LoRA into the weights for good; the UNet is a plain one again."""
    unet.fuse_lora()
    unet.unload_lora()


def in_turn(unet: UNet2DConditionModel, folder: Path) -> Iterator[str]:
    """Yield "base", then "tuned" with the LoRA exported to `folder` on a UNet that had none, as sampling wants it."""
    for name in ("base", "tuned"):
        if name == "tuned":
            load_lora(unet, folder)
        with merged(unet):
            yield name


def adapted(unet: nn.Module) -> list[tuple[LoraLayer, nn.Parameter]]:
    """The layers that have LoRA, each with the weight that it is merged into."""
    layers = [module for module in unet.modules() if isinstance(module, LoraLayer)]
    return [(layer, layer.get_base_layer().get_parameter("weight")) for layer in layers]


def mergeable(unet: nn.Module) -> list[tuple[LoraLayer, nn.Parameter]]:
    """Of `adapted` the layers that `merged` merges: those in float32.

    Half precision rounds an update of relative size 5e-4 away where it is merged into the weights; beside them, as
    replay differentiates it, it takes effect.
    """
    return [(layer, weight) for layer, weight in adapted(unet) if weight.dtype == torch.float32]


@contextlib.contextmanager
def merged(unet: nn.Module) -> Iterator[None]:
    """Run with LoRA merged into the base weights where they are float32; they are exactly restored afterwards."""
    layers = mergeable(unet)
    originals = [weight.detach().clone() for _, weight in layers]
    try:
        with torch.no_grad():
            for layer, _ in layers:
                layer.merge()
        yield
    finally:
        with torch.no_grad():
            for (layer, weight), original in zip(layers, originals, strict=True):
                layer.unmerge()
                weight.copy_(original)
