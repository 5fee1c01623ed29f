"""LoRA on the attention projections, in the form that diffusers loads."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from pathlib import Path

import torch
import torch.nn.functional as F
from diffusers.loaders.peft import PeftAdapterMixin
from diffusers.utils.peft_utils import recurse_remove_peft_layers
from peft import LoraConfig, inject_adapter_in_model
from peft.tuners.lora import Linear, LoraLayer
from peft.utils import get_peft_model_state_dict, set_peft_model_state_dict
from safetensors.torch import save
from torch import Tensor, nn

from comat.diffusion.backbones import Backbone
from comat.errors import UserError
from comat.storage.tables import read_safetensors, write_bytes

FILE = "pytorch_lora_weights.safetensors"


class LoraLinear(Linear):
    """peft's LoRA of a linear layer, which in half precision is true to updates below the weights' rounding.

    Its weights are float32 masters; it computes in the precision of its input, and their gradients arrive in float32.
    The products of base and LoRA are summed before the one rounding, and a bias, if the base has one, is added to that.
    peft's own forward rounds the base's output first, to a grid on which a small update mostly changes nothing.
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


def add_lora(backbone: Backbone, rank: int, generator: torch.Generator) -> list[nn.Parameter]:
    """Put LoRA of `rank` (scale 1) on every attention projection; returns its float32 weights.

    A is drawn from `generator` with mean 0 and standard deviation 1/rank; B is zero, so nothing changes at first.
    """
    weights = _put_lora(backbone, rank)
    with torch.no_grad():
        for name, weight in weights:
            if "lora_A" in name:
                weight.copy_(torch.randn(weight.shape, generator=generator) / rank)
            else:
                weight.zero_()
    return [weight for _, weight in weights]


def _put_lora(backbone: Backbone, rank: int) -> list[tuple[str, nn.Parameter]]:
    """LoRA on every attention projection, with names; what its weights hold is left to chance."""
    denoiser, targets = backbone.denoiser, list(backbone.LORA_TARGETS)
    config = LoraConfig(r=rank, lora_alpha=rank, target_modules=targets, init_lora_weights=False)
    config._register_custom_module({nn.Linear: LoraLinear})
    with torch.device("meta"):  # where nothing is drawn
        inject_adapter_in_model(config, denoiser, "default")  # as diffusers does, for models without its mixin too
    for layer, base in adapted(denoiser):
        for part in (*layer.lora_A.values(), *layer.lora_B.values()):
            part.to(torch.float32).to_empty(device=base.device).requires_grad_(True)
    return [(name, weight) for name, weight in denoiser.named_parameters() if "lora_" in name]


def lora_state(denoiser: nn.Module) -> dict[str, Tensor]:
    """The adapter's weights under peft's names."""
    return get_peft_model_state_dict(denoiser)


def set_lora_state(denoiser: nn.Module, state: dict[str, Tensor]) -> None:
    set_peft_model_state_dict(denoiser, state)


def export_lora(backbone: Backbone, folder: Path) -> None:
    """Write `pytorch_lora_weights.safetensors`, which `load_lora_weights` of a stock pipeline reads.

    Where diffusers has none for the family, also what `peft.PeftModel.from_pretrained(denoiser, folder)` reads.

    Raises:
        UserError: if a weight is not finite.
    """
    state = backbone.exported_lora(lora_state(backbone.denoiser))
    tensors = {name: state[name].detach().cpu().contiguous() for name in sorted(state)}
    _check_finite(tensors, folder / FILE)
    write_bytes(folder / FILE, save(tensors, {"format": "pt"}))
    if not isinstance(backbone.denoiser, PeftAdapterMixin):
        own = {f"base_model.model.{name}": value for name, value in backbone.imported_lora(tensors).items()}
        write_bytes(folder / "adapter_model.safetensors", save(own, {"format": "pt"}))
        backbone.denoiser.peft_config["default"].save_pretrained(str(folder))


def load_lora(backbone: Backbone, folder: Path) -> None:
    """Put an exported LoRA onto a model that has none, ready for sampling.

    Raises:
        UserError: if it is not of this model, to the last weight: diffusers would leave out what does not fit.
    """
    path = folder / FILE
    tensors = read_safetensors(path)
    ranks = {value.shape[0] for name, value in tensors.items() if ".lora.down." in name or ".lora_A." in name}
    if len(ranks) != 1:
        raise UserError(f"{path}: expected the weights of a LoRA of one rank, found ranks {sorted(ranks)}")
    _put_lora(backbone, ranks.pop())
    own = backbone.exported_lora(lora_state(backbone.denoiser))
    missing, extra = sorted({*own} - {*tensors}), sorted({*tensors} - {*own})
    if missing or extra:
        example = f"it lacks {missing[0]}" if missing else f"it has {extra[0]}"
        raise UserError(
            f"{path}: not a LoRA of this base model: of the {len(own)} weights that it must have {len(missing)} are "
            f"missing, and {len(extra)} are left over ({example}); train it on this base model"
        )
    wrong = next((name for name, value in own.items() if tensors[name].shape != value.shape), None)
    if wrong:
        shapes = f"expected {tuple(own[wrong].shape)}, found {tuple(tensors[wrong].shape)}"
        raise UserError(f"{path}: {wrong}: {shapes}; it was trained on another base model")
    _check_finite(tensors, path)
    set_lora_state(backbone.denoiser, backbone.imported_lora(tensors))


def _check_finite(tensors: Mapping[str, Tensor], path: Path) -> None:
    broken = [name for name, value in tensors.items() if not torch.isfinite(value).all()]
    if broken:
        raise UserError(
            f"{path}: {len(broken)} of {len(tensors)} weights are not finite, {broken[0]} first; train again with a "
            "lower learning rate"
        )


def absorb_lora(backbone: Backbone) -> None:
    """Merge LoRA into the weights for good; the denoiser is a plain one again."""
    with torch.no_grad():
        for layer, _ in adapted(backbone.denoiser):
            layer.merge()
    recurse_remove_peft_layers(backbone.denoiser)
    del backbone.denoiser.peft_config


def in_turn(backbone: Backbone, folder: Path) -> Iterator[str]:
    """Yield "base", then "tuned" with the LoRA exported to `folder` on a model that had none, as sampling wants it."""
    for name in ("base", "tuned"):
        if name == "tuned":
            load_lora(backbone, folder)
        with merged(backbone.denoiser):
            yield name


def adapted(denoiser: nn.Module) -> list[tuple[LoraLayer, nn.Parameter]]:
    """The layers that have LoRA, each with the weight that it is merged into."""
    layers = [module for module in denoiser.modules() if isinstance(module, LoraLayer)]
    return [(layer, layer.get_base_layer().get_parameter("weight")) for layer in layers]


def mergeable(denoiser: nn.Module) -> list[tuple[LoraLayer, nn.Parameter]]:
    """Of `adapted` the layers that `merged` merges: those in float32.

    Half precision rounds an update of relative size 5e-4 away where it is merged into the weights; beside them, as
    replay differentiates it, it takes effect.
    """
    return [(layer, weight) for layer, weight in adapted(denoiser) if weight.dtype == torch.float32]


@contextlib.contextmanager
def merged(denoiser: nn.Module) -> Iterator[None]:
    """Run with LoRA merged into the base weights where they are float32; they are exactly restored afterwards."""
    layers = mergeable(denoiser)
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
