"""Cross-attention maps, computed only where a loss or a picture needs them; every other layer stays fused."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence

import torch.nn.functional as F
from diffusers.models.attention_processor import Attention
from torch import Tensor, nn

AttentionMaps = dict[str, Tensor]
"""Layer name → (B, heads, h, w, L): probabilities of the conditional half."""


class _Recorder:
    """An attention processor that also keeps the probabilities of the conditional (second) half of the batch."""

    probabilities: Tensor
    """Of the last forward pass: (B, heads, h * w, L)."""

    def __call__(
        self,
        attn: Attention,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
        temb: Tensor | None = None,
    ) -> Tensor:
        q, k, v = attn.to_q(hidden_states), attn.to_k(encoder_hidden_states), attn.to_v(encoder_hidden_states)
        q, k, v = (x.unflatten(-1, (attn.heads, -1)).transpose(1, 2) for x in (q, k, v))
        half = len(q) // 2
        scores = q[half:].float() @ k[half:].float().transpose(-1, -2) * attn.scale
        self.probabilities = scores.softmax(-1)
        out = F.scaled_dot_product_attention(q, k, v, attn_mask=attention_mask, scale=attn.scale)
        out = out.transpose(1, 2).flatten(2)
        return attn.to_out[1](attn.to_out[0](out)) / attn.rescale_output_factor


class MapRecording:
    """The recorders of one forward pass."""

    def __init__(self, recorders: dict[str, _Recorder]) -> None:
        self._recorders = recorders

    def collect(self, latent_size: Sequence[int]) -> AttentionMaps:
        """The maps of the last forward pass, with their rows and columns for a latent of (h, w)."""
        maps = {}
        for name, recorder in self._recorders.items():
            p = recorder.probabilities
            shrink = round((latent_size[0] * latent_size[1] / p.shape[2]) ** 0.5)
            maps[name] = p.unflatten(2, (latent_size[0] // shrink, latent_size[1] // shrink))
        return maps


def _attention(unet: nn.Module, name: str) -> Attention:
    module = unet.get_submodule(name)
    assert isinstance(module, Attention), name
    return module


@contextlib.contextmanager
def recorded_maps(unet: nn.Module, layers: Sequence[str]) -> Iterator[MapRecording]:
    """Record the maps of `layers` (names of cross-attention modules) while the block runs."""
    modules = {name: _attention(unet, name) for name in layers}
    before = {name: module.processor for name, module in modules.items()}
    recorders = {name: _Recorder() for name in modules}
    try:
        for name, module in modules.items():
            # Any callable of this form may be one; diffusers' annotation names the class of its default.
            module.processor = recorders[name]  # type: ignore[assignment]
        yield MapRecording(recorders)
    finally:
        for name, module in modules.items():
            module.processor = before[name]
