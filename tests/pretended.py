"""A GPU without one: tensors whose numbers are on the CPU and that say they are elsewhere.

An operation on tensors of both places is an error here as it is there, so that what would fail on a GPU alone fails
in a test. What is computed is what the CPU computes, to the bit. It calls itself "meta", the one device besides the
CPU of which every build of torch knows all that autograd asks of a device; real ones of that name are not looked at.

Not seen: kernels and precision of a GPU, what waits for it, and random numbers drawn on it.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from diffusers import ModelMixin
from torch import nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode, return_and_correct_aliasing
from torch.utils._pytree import tree_leaves, tree_map_only
from transformers import PreTrainedModel

DEVICE = torch.device("meta")
aten = torch.ops.aten
CROSSING = (aten.copy_.default, aten._to_copy.default)
"""They take a tensor from one device to another."""
INDEXING = (aten.index.Tensor, aten.index_put.default, aten.index_put_.default, aten._index_put_impl_.default)
"""Their indices, the second argument, may be on the CPU."""


class Placed(torch.Tensor):
    """A tensor that says it is on `DEVICE`; its numbers are in `inner`."""

    inner: torch.Tensor

    @staticmethod
    def __new__(cls, inner: torch.Tensor) -> Placed:
        return torch.Tensor._make_wrapper_subclass(
            cls,
            inner.shape,
            strides=inner.stride(),
            storage_offset=inner.storage_offset(),
            dtype=inner.dtype,
            layout=inner.layout,
            device=DEVICE,
        )

    def __init__(self, inner: torch.Tensor) -> None:
        self.inner = inner

    def __repr__(self) -> str:
        return f"Placed({self.inner!r})"

    @property
    def is_meta(self) -> bool:  # type: ignore[override]
        return False

    def tolist(self) -> Any:
        return self.inner.tolist()

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _run(func, args, kwargs or {})


def is_ours(device: Any) -> bool:
    return device is not None and torch.device(device).type == DEVICE.type


def _run(func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    """Compute on the CPU, and say where the result is.

    Raises:
        RuntimeError: where a GPU would: tensors of both places, but for single numbers from the CPU.
    """
    tensors = [one for one in tree_leaves([args, kwargs]) if isinstance(one, torch.Tensor)]
    ours = [one for one in tensors if isinstance(one, Placed)]
    others = [one for one in tensors if not isinstance(one, Placed) and one.dim()]
    if func in INDEXING:
        indices = [id(one) for one in args[1] if one is not None]
        others = [one for one in others if id(one) not in indices]
    if ours and others and func not in CROSSING:
        raise RuntimeError(f"{func}: tensors on a GPU, and on the CPU: {[tuple(one.shape) for one in others]}")
    if func is aten.copy_.default:
        here = isinstance(args[0], Placed)
    else:
        here = is_ours(kwargs["device"]) if kwargs.get("device") is not None else bool(ours)
    if here and not ours and kwargs.get("generator") is not None:
        raise RuntimeError(f"{func}: a generator of the CPU for numbers on a GPU")
    plain_args, plain_kwargs = tree_map_only(Placed, lambda one: one.inner, (args, dict(kwargs)))
    if plain_kwargs.get("device") is not None:
        plain_kwargs["device"] = torch.device("cpu")
    found = func(*plain_args, **plain_kwargs)
    if not here:
        return found
    # Conjugated or negated later: the one that says where it is would not know.
    found = tree_map_only(torch.Tensor, lambda one: one.resolve_conj().resolve_neg(), found)
    written = {id(one.inner): one for one in ours}  # in place: the tensor that was given, not another
    found = tree_map_only(torch.Tensor, lambda one: written[id(one)] if id(one) in written else Placed(one), found)
    if func._schema.is_mutable or not ours or func in CROSSING:
        return found
    return return_and_correct_aliasing(func, args, kwargs, found)


class _Operations(TorchDispatchMode):
    """What makes tensors of none: `torch.zeros(2, device=...)`, and `.to(...)` of one on the CPU."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _run(func, args, kwargs or {})


class _Constructors(TorchFunctionMode):
    """What makes a tensor of Python's numbers makes it on the CPU first; a device without numbers would get none."""

    on = True

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        if not self.on:
            return func(*args, **kwargs)
        if func in (torch.tensor, torch.as_tensor) and is_ours(kwargs.get("device")):
            return Placed(func(*tree_map_only(Placed, lambda one: one.inner, args), **{**kwargs, "device": None}))
        if func is torch.Tensor.new_tensor and isinstance(args[0], Placed):
            return Placed(torch.tensor(*args[1:], **{"dtype": args[0].dtype, **kwargs}))
        if func in (torch.Tensor.__getitem__, torch.Tensor.__setitem__):
            whole, at, *rest = args
            at = tuple(torch.tensor(one) if isinstance(one, list) else one for one in as_tuple(at))
            args = (whole, at, *rest)
        return func(*args, **kwargs)


def as_tuple(value: Any) -> tuple[Any, ...]:
    return value if isinstance(value, tuple) else (value,)


@contextmanager
def pretending() -> Iterator[None]:
    """Within it, tensors may be on `DEVICE`."""
    with _Constructors(), _Operations(), torch.autograd.set_multithreading_enabled(False):
        yield


@contextmanager
def _honest() -> Iterator[None]:
    """Without it for a while, for the libraries' loaders know a device "meta" of their own."""
    with torch.utils._python_dispatch._disable_current_modes():
        _Constructors.on = False
        try:
            yield
        finally:
            _Constructors.on = True


def place(module: nn.Module) -> nn.Module:
    """Put a module's weights and buffers on `DEVICE`."""
    return module._apply(lambda one: one if isinstance(one, Placed) else Placed(one.detach()))


def pretend(monkeypatch: pytest.MonkeyPatch) -> None:
    """From now on the stages' device is `DEVICE`, and models come there from the CPU."""
    for name, module in list(sys.modules.items()):
        if name.split(".")[0] in ("comat", "stages") and hasattr(module, "choose_device"):
            monkeypatch.setattr(module, "choose_device", lambda name: DEVICE)
    to = nn.Module.to

    def placed(self: nn.Module, *args: Any, **kwargs: Any) -> nn.Module:
        device = next((one for one in (*args, kwargs.get("device")) if isinstance(one, str | torch.device)), None)
        if not is_ours(device):
            return to(self, *args, **kwargs)
        rest = [one for one in args if not isinstance(one, str | torch.device)]
        return place(to(self, *rest) if rest else self)

    monkeypatch.setattr(nn.Module, "to", placed)
    for kind in (PreTrainedModel, ModelMixin):
        monkeypatch.setattr(kind, "to", placed)
        load = kind.from_pretrained.__func__  # type: ignore[attr-defined]

        def honestly(cls: Any, *args: Any, _load: Any = load, **kwargs: Any) -> Any:
            with _honest():
                return _load(cls, *args, **kwargs)

        monkeypatch.setattr(kind, "from_pretrained", classmethod(honestly))
