"""What one call costs: floating-point operations by torch's counter, and the bytes that its backward pass keeps."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.overrides import TorchFunctionMode
from torch.utils.checkpoint import checkpoint
from torch.utils.flop_counter import FlopCounterMode


@dataclass(frozen=True)
class Cost:
    """`flops` of a call, and `kept` bytes of activations between its forward and its backward pass."""

    flops: float = 0.0
    kept: float = 0.0

    def __add__(self, other: Cost) -> Cost:
        return Cost(self.flops + other.flops, self.kept + other.kept)

    def __mul__(self, count: float) -> Cost:
        return Cost(self.flops * count, self.kept * count)


NOTHING = Cost()


class AsOnDevice(TorchFunctionMode):
    """What the meta device cannot do, or does differently.

    Attention is fused; it would be spelled out, its probabilities kept. Models ask about values to see that their
    inputs fit or need no mask; there are no values, and the answer is yes.
    """

    def __torch_function__(
        self,
        func: Callable[..., object],
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> object:
        kwargs = kwargs or {}
        if func in (Tensor.item, Tensor.__bool__) and args[0].is_meta and args[0].dtype == torch.bool:
            return True
        if func is not F.scaled_dot_product_attention:
            return func(*args, **kwargs)
        q, k, v = args[:3] if len(args) >= 3 else (kwargs[name] for name in ("query", "key", "value"))
        # A mask changes neither operations nor what is kept.
        return torch.ops.aten._scaled_dot_product_efficient_attention(q, k, v, None, True)[0]


def checkpoint_as_on_device(block: nn.Module, *args: object) -> object:
    """Gradient checkpointing for `cost`, of which the second run of a block is what the first was."""
    return checkpoint(block, *args, use_reentrant=False, context_fn=lambda: (nullcontext(), AsOnDevice()))


def cost(call: Callable[[], Tensor], *, modules: Iterable[nn.Module] = (), inputs: Iterable[Tensor] = ()) -> Cost:
    """The cost of `call` on meta tensors: with its backward pass where `modules` or `inputs` are given.

    Args:
        modules: their trainable weights receive gradients; no weight of theirs counts as kept.
        inputs: tensors that receive gradients.
    """
    modules = list(modules)
    receivers = [w for module in modules for w in module.parameters() if w.requires_grad] + list(inputs)
    weights = {w.untyped_storage()._cdata for module in modules for w in module.parameters()}
    kept = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        kept[storage._cdata] = storage
        return tensor

    with FlopCounterMode(display=False) as counter, torch.set_grad_enabled(bool(receivers)):
        with saved_tensors_hooks(keep, lambda tensor: tensor), AsOnDevice():
            result = call().float().sum()
        if receivers:
            result.backward(inputs=receivers)
    return Cost(counter.get_total_flops(), sum(s.nbytes() for key, s in kept.items() if key not in weights))


def matmul_rate(device: torch.device, dtype: torch.dtype, seconds: float = 0.5) -> float:
    """Operations a second of a matrix product on an idle `device`: the best of those that fit into `seconds`.

    On a CPU one thread is timed, on a product small enough to be left alone by other work, and counted for all.
    """
    threads = torch.get_num_threads()
    side, count = (512, threads) if device.type == "cpu" else (8192, 1)
    a = torch.ones(side, side, device=device, dtype=dtype)
    best, end = float("inf"), None
    try:
        torch.set_num_threads(1)
        while end is None or time.perf_counter() < end:
            start = time.perf_counter()
            (a @ a)[0, 0].item()  # waits for the device
            best = min(best, time.perf_counter() - start)
            end = end or time.perf_counter() + seconds
    finally:
        torch.set_num_threads(threads)
    return count * 2 * side**3 / best
