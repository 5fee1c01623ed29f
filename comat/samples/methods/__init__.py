"""Methods that need no training: the base model, drawn with more attention to its prompt (Table 1)."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module

from comat.samples.methods.base import Method

METHODS = {
    "composable": "ComposableDiffusion",
    "structured": "StructuredDiffusion",
    "attend_and_excite": "AttendAndExcite",
}
"""Name, which is that of its file → its class."""


def method_class(name: str) -> Callable[[], Method]:
    """The class of a method of `METHODS`; its file is read now, not before."""
    return getattr(import_module(f"{__name__}.{name}"), METHODS[name])
