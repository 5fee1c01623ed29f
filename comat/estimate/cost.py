"""What one call costs: floating-point operations by torch's counter, and the bytes that it keeps and needs at once."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Any, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.multiprocessing.reductions import StorageWeakRef
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.checkpoint import checkpoint
from torch.utils.flop_counter import FlopCounterMode


@dataclass(frozen=True)
class Cost:
    """`flops` of a call, and `kept` bytes of activations between its forward and its backward pass.

    `peak` are the most bytes that it holds at once, kept ones among them: without inputs, weights and their gradients.
    """

    flops: float = 0.0
    kept: float = 0.0
    peak: float = field(default=0.0, compare=False)

    def __add__(self, other: Cost) -> Cost:
        """One call after the other, and the backward passes at the end."""
        peak = max(self.peak + other.kept, self.kept + other.peak)
        return Cost(self.flops + other.flops, self.kept + other.kept, peak)

    def __mul__(self, count: float) -> Cost:
        return Cost(self.flops * count, self.kept * count, self.peak * count)


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


class _Live(TorchDispatchMode):
    """Counts the bytes of the tensors that operations make, for as long as their storage is held; `peak` is the most.

    What is still held is looked up only where the peak may have grown by a tenth: it is exact to that.
    """

    def __enter__(self) -> Self:
        gc.freeze()  # what was there before is none of it, and need not be looked through
        super().__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        super().__exit__(*error)
        gc.unfreeze()

    def __init__(self) -> None:
        super().__init__()
        self.held: dict[int, tuple[StorageWeakRef, int]] = {}
        self.made = 0
        self.peak = 0

    def leave_out(self, tensor: Tensor) -> None:
        """Count this one no longer: it is a weight's gradient."""
        self.made -= self.held.pop(tensor.untyped_storage()._cdata, (None, 0))[1]

    def __torch_dispatch__(
        self,
        func: Callable[..., object],
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> object:
        result = func(*args, **(kwargs or {}))
        given = {_storage(leaf) for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)}
        for tensor in tree_leaves(result):
            if isinstance(tensor, Tensor) and _storage(tensor) not in given:  # a view needs no more
                storage = tensor.untyped_storage()
                self.leave_out(tensor)  # the place of one that is gone
                self.held[storage._cdata] = (StorageWeakRef(storage), storage.nbytes())
                self.made += storage.nbytes()
        if self.made > 1.1 * self.peak:
            gc.collect()  # blocks that run again leave circles, by way of the modes that look on here
            self.held = {key: one for key, one in self.held.items() if not one[0].expired()}
            self.made = sum(size for _, size in self.held.values())
            self.peak = max(self.peak, self.made)
        return result


def _storage(tensor: Tensor) -> int:
    return tensor.untyped_storage()._cdata


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

    live = _Live()
    hooks = [w.register_post_accumulate_grad_hook(lambda w: live.leave_out(_gradient(w))) for w in receivers]
    with FlopCounterMode(display=False) as counter, live, torch.set_grad_enabled(bool(receivers)):
        with saved_tensors_hooks(keep, lambda tensor: tensor), AsOnDevice():
            result = call().float().sum()
        of_kept = sum(s.nbytes() for key, s in kept.items() if key not in weights)
        kept.clear()  # the backward pass frees what it has used
        if receivers:
            result.backward(inputs=receivers)
    for hook in hooks:
        hook.remove()
    for weight in receivers:
        weight.grad = None
    return Cost(counter.get_total_flops(), of_kept, max(live.peak, of_kept))


def _gradient(weight: Tensor) -> Tensor:
    assert weight.grad is not None  # the hook runs when it was accumulated
    return weight.grad


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
