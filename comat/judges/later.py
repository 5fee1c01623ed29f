"""Judging models that are loaded when they are first asked."""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, Protocol, TypeVar


class Named(Protocol):
    @property
    def id(self) -> str: ...


M = TypeVar("M")
N = TypeVar("N", bound=Named)


class Later(Generic[M]):
    """A model whose `id` is known before it is loaded: where everything was judged before, none of it is needed."""

    def __init__(self, id: str, load: Callable[[], M]) -> None:
        self.id, self._load = id, load
        self._model: M | None = None

    def __call__(self) -> M:
        """The model; loaded once."""
        if self._model is None:
            self._model = self._load()
        return self._model


def ready(model: N) -> Later[N]:
    """One that is there."""
    return Later(model.id, lambda: model)
