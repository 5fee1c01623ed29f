"""A tensor store that all processes of a stage fill: each computes whole batches, the main one writes them in order.

The batches are slices of a fixed list of rows, whoever computes them and wherever a run was interrupted, so the shards
are the same bytes whatever the number of processes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Generic, TypeVar

from tqdm import tqdm

from comat.running.distributed import Processes
from comat.storage.shard_progress import Row
from comat.storage.tensor_store import TensorStoreWriter

T = TypeVar("T")


class SharedStore(Generic[T]):
    """The rows of `items`, in batches of `batch`; goes on after the last row that is on disk."""

    def __init__(
        self,
        processes: Processes,
        folder: Path,
        shard_size: int,
        items: Sequence[T],
        id_of: Callable[[T], str],
        batch: int,
    ) -> None:
        self._processes, self._items, self._batch = processes, items, batch
        self.writer = TensorStoreWriter(folder, shard_size) if processes.main else None
        self.done = processes.from_main(lambda: self._stored(id_of))

    def _stored(self, id_of: Callable[[T], str]) -> int:
        """How many of the first items are done with, in whole batches; the last row may be of a batch that is not."""
        last = self.writer.last if self.writer else None
        if last is None:
            return 0
        at = next(i for i, item in enumerate(self._items) if id_of(item) == last) + 1
        return at if at == len(self._items) else at // self._batch * self._batch

    def fill(self, compute: Callable[[Sequence[Sequence[T]]], Iterable[list[Row]]], title: str) -> None:
        """Compute what is not done and write it.

        Args:
            compute: from batches of items to the rows of each batch; it is given this process's batches.
            title: of the progress bar.
        """
        batches = [self._items[at : at + self._batch] for at in range(self.done, len(self._items), self._batch)]
        results = self._processes.in_order(compute(self._processes.share(batches)), len(batches))
        with tqdm(total=len(self._items), initial=self.done, desc=title, disable=not self._processes.main) as progress:
            for batch, rows in zip(batches, results, strict=False):
                for row in rows:
                    if self.writer and row.id not in self.writer:
                        self.writer.add(row.id, row.tensors, row.caption)
                if self.writer:
                    self.writer.save()
                progress.update(len(batch))
        if self.writer:
            self.writer.close()
