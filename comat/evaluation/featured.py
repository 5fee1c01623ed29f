"""Features of sets of images, for Fréchet distances: by all processes, and no batch twice."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm

from comat.errors import UserError
from comat.evaluation.remembered import Features
from comat.judges.later import Later
from comat.running.distributed import Processes


@dataclass(frozen=True)
class Pictures:
    """What a batch shows: (H, W, 3) images of one size, from 0 to 255, and how many could not be read, and why."""

    images: Sequence[np.ndarray]
    skipped: Mapping[str, int]


@dataclass(frozen=True)
class Batch:
    """Images of a set by a key that tells their contents, and how to read them."""

    key: str
    read: Callable[[], Pictures]


def key_of(*parts: object) -> str:
    """32 hexadecimal digits for the contents of a batch."""
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:32]


@dataclass(frozen=True)
class Featured:
    """Looks at batches of images by one model of features, those alone that it has not looked at before.

    `known` is the memory, on the main process; the others have none.
    """

    features: Later[nn.Module]
    known: Features | None
    device: torch.device
    processes: Processes

    def of(self, batches: Sequence[Batch], title: str) -> tuple[list[Tensor], Counter[str]]:
        """(N, D) float64 features of each batch, in order, and what could not be read; on the main process alone.

        Raises:
            UserError: if an image is missing or unreadable, or its features are not finite.
        """
        todo = self.processes.from_main(lambda: self._unknown(batches))
        own = self._looked([batches[place] for place in self.processes.share(todo)])
        results = self.processes.in_order(own, len(todo))
        progress = tqdm(todo, desc=title, unit=" batches", disable=not self.processes.main)
        for place, (values, skipped) in zip(progress, results, strict=False):
            if self.known:
                self.known.add(batches[place].key, values, skipped)
        return self._recalled(batches)

    def _unknown(self, batches: Sequence[Batch]) -> list[int]:
        return [n for n, batch in enumerate(batches) if self.known is None or self.known.get(batch.key) is None]

    def _recalled(self, batches: Sequence[Batch]) -> tuple[list[Tensor], Counter[str]]:
        found, left_out = [], Counter[str]()
        for batch in batches if self.known else ():
            assert self.known is not None
            seen = self.known.get(batch.key)
            assert seen is not None, batch.key  # it was there or has just been written
            found.append(seen[0].double())
            left_out.update(seen[1])
        return [part for part in found if len(part)], left_out

    def _looked(self, batches: Sequence[Batch]) -> Iterator[tuple[Tensor, dict[str, int]]]:
        for pictures in _ahead(batches):
            yield self._features(pictures.images), dict(pictures.skipped)

    def _features(self, images: Sequence[np.ndarray]) -> Tensor:
        if not images:
            return torch.empty(0, 0)
        model = self.features().to(self.device)
        pixels = torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2)
        values = model(pixels.to(self.device)).float().cpu()
        if not values.isfinite().all():
            broken = int((~values.isfinite().all(1)).sum())
            raise UserError(
                f"model {self.features.id!r}: its features of {broken} of {len(values)} images are not finite; look at "
                "its weights"
            )
        return values


def _ahead(batches: Iterable[Batch]) -> Iterator[Pictures]:
    """What the batches show, in order; the next is read while one is looked at."""
    with ThreadPoolExecutor(1) as pool:
        waiting = None
        for batch in batches:
            following = pool.submit(batch.read)
            if waiting:
                yield waiting.result()
            waiting = following
        if waiting:
            yield waiting.result()
