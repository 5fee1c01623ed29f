"""Attention maps between image and text, computed only where a loss or a picture needs them; the rest stays fused.

One recorder for every family of models: while a block runs, queries and keys of the fused attention inside the named
modules are kept, as they are after norms and rotary embeddings. The probabilities are computed from them afterwards.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils.checkpoint import checkpoint

AttentionMaps = dict[str, Tensor]
"""Layer name → (B, heads, h, w, L): probabilities of the text's columns for the conditional samples.

Where image and text attend jointly they are what the image gives to the text; the rest of its attention is on itself.
"""


class Layout(NamedTuple):
    """Which queries are the image's, as h rows of w, and which keys the text's."""

    rows: slice
    columns: slice
    size: tuple[int, int]


def cross_layout(latent_size: Sequence[int]) -> Callable[[int, int], Layout]:
    """Of cross-attention, on feature maps of any scale of latents of (h, w): all queries, all keys.

    A UNet that halves an odd side keeps the larger half, so that a side is the latents' own by the scale, rounded up.
    """

    def layout(queries: int, _keys: int) -> Layout:
        height, width = latent_size
        sizes = ((-(-height // shrink), -(-width // shrink)) for shrink in range(1, max(height, width) + 1))
        # Each side only falls, so that of all sizes of as many queries each is the same.
        return Layout(slice(None), slice(None), next(size for size in sizes if size[0] * size[1] <= queries))

    return layout


def joint_layout(
    latent_size: Sequence[int], patch: int, *, text_first: bool, multiple: int = 1
) -> Callable[[int, int], Layout]:
    """Of joint attention of a text and the patches of latents of (h, w), of which either comes first; before the text
    the image is filled up to a multiple of tokens.
    """
    size = (latent_size[0] // patch, latent_size[1] // patch)
    image = size[0] * size[1]
    filled = image + -image % multiple

    def layout(_queries: int, keys: int) -> Layout:
        text = keys - image
        if text_first:
            return Layout(slice(text, None), slice(0, text), size)
        return Layout(slice(0, image), slice(filled, None), size)

    return layout


class _Attended(NamedTuple):
    """A call of fused attention: q (B, heads, N, d), k (B, heads, M, d), what is added to the scores, their scale."""

    q: Tensor
    k: Tensor
    mask: Tensor | None
    scale: float


class _Tap(TorchFunctionMode):
    """Keeps the arguments of fused attention while one of the named modules runs."""

    def __init__(self) -> None:
        super().__init__()
        self.running: list[str] = []
        self.calls: dict[str, _Attended] = {}

    def __torch_function__(
        self, function: Callable[..., Any], _types: Any, args: tuple = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if function is F.scaled_dot_product_attention and self.running:
            given = dict(zip(("query", "key", "value", "attn_mask"), args, strict=False)) | dict(kwargs)
            scale = given.get("scale")
            q, k, mask = given["query"], given["key"], given.get("attn_mask")
            self.calls[self.running[-1]] = _Attended(q, k, mask, q.shape[-1] ** -0.5 if scale is None else scale)
        return function(*args, **kwargs)


class MapRecording:
    """The calls of one forward pass."""

    def __init__(self, layers: Sequence[str], tap: _Tap) -> None:
        self._layers, self._tap = layers, tap

    def collect(self, layout: Callable[[int, int], Layout], samples: int) -> AttentionMaps:
        """The maps of the last forward pass, of its last `samples` samples: those with a prompt."""
        missing = [name for name in self._layers if name not in self._tap.calls]
        assert not missing, f"{missing[0]} ran without fused attention"
        return {name: _maps(self._tap.calls[name], layout, samples) for name in self._layers}


def _maps(call: _Attended, layout: Callable[[int, int], Layout], samples: int) -> Tensor:
    q, k = call.q[-samples:], call.k[-samples:]
    if k.shape[1] != q.shape[1]:  # grouped queries: several heads read one key
        k = k.repeat_interleave(q.shape[1] // k.shape[1], 1)
    mask = call.mask if call.mask is None or len(call.mask) == 1 else call.mask[-samples:]
    rows, columns, size = layout(q.shape[2], k.shape[2])
    q = q[:, :, rows]
    if mask is not None and mask.shape[2] != 1:
        mask = mask[:, :, rows]
    if columns == slice(None):
        return _probabilities(q, k, mask, call.scale, columns).unflatten(2, size)
    # The image's attention to itself is many times that to the text: one head at a time, again in the backward pass.
    heads = []
    for head in range(q.shape[1]):
        one = slice(head, head + 1)
        own = mask if mask is None or mask.shape[1] == 1 else mask[:, one]
        parts = (q[:, one], k[:, one], own, call.scale, columns)
        heads.append(checkpoint(_probabilities, *parts, use_reentrant=False))
    return torch.cat(heads, 1).unflatten(2, size)


def _probabilities(q: Tensor, k: Tensor, mask: Tensor | None, scale: float, columns: slice) -> Tensor:
    scores = q.float() @ k.float().transpose(-1, -2) * scale
    if mask is not None:
        scores = scores.masked_fill(~mask, -torch.inf) if mask.dtype == torch.bool else scores + mask.float()
    return scores.softmax(-1)[..., columns]


@contextlib.contextmanager
def recorded_maps(denoiser: nn.Module, layers: Sequence[str]) -> Iterator[MapRecording]:
    """Record the attention of `layers` (names of attention modules) while the block runs."""
    if not layers:
        yield MapRecording((), _Tap())
        return
    tap = _Tap()

    def enter(name: str) -> Callable[..., None]:
        return lambda *_: tap.running.append(name)

    def leave(*_: Any) -> None:
        tap.running.pop()

    hooks = []
    for name in layers:
        module = denoiser.get_submodule(name)
        hooks += [module.register_forward_pre_hook(enter(name))]
        hooks += [module.register_forward_hook(leave, always_call=True)]
    try:
        with tap:
            yield MapRecording(layers, tap)
    finally:
        for hook in hooks:
            hook.remove()
