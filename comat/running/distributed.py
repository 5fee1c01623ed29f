"""The processes of a stage: who does which share of the work, and the few things that they tell each other.

The one place that knows of process groups. Every process runs the same stage; only the main one writes. One process
alone needs no group, and nothing here changes what it computes.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from comat.errors import UserError, explained, first_line
from comat.running.workdir import stage_directory

T = TypeVar("T")
PATIENCE = timedelta(minutes=30)
"""Longest wait for a process that lives: for a slow disk or download. One that dies is noticed at once."""
ASKING = 0.2
"""Seconds between two looks at whether the main process is done with long work."""


@dataclass(frozen=True)
class Processes:
    """This process is `rank` of `count`, started by the process `launcher`; on the `board` they leave notes."""

    rank: int = 0
    count: int = 1
    launcher: int = 0
    board: dist.Store | None = None

    @property
    def main(self) -> bool:
        """Whether this is the process that writes."""
        return self.rank == 0

    def share(self, items: Sequence[T]) -> Sequence[T]:
        """Every `count`-th item: those that this process works on."""
        return items[self.rank :: self.count]

    def in_order(self, own: Iterable[T], total: int) -> Iterator[T]:
        """On the main process the results of all processes, in the order of the `total` items that were shared.

        Args:
            own: the results of this process's `share`. Each is handed over as soon as it is there.

        On the others nothing comes out, but it must be iterated over as well.
        """
        results = iter(own)
        for at in range(0, total, self.count):
            mine = [next(results)] if at + self.rank < total else []
            for found in self.gather(mine):
                yield from found

    def gather(self, value: T) -> list[T]:
        """On the main process the values of all processes by rank; on the others nothing."""
        if self.count == 1:
            return [value]
        found: list[list[T]] = [[]] * self.count if self.main else []
        with self._talking():
            dist.gather_object([value], found or None)
        return [value for (value,) in found]

    def from_main(self, value: Callable[[], T]) -> T:
        """What the main process finds, on all."""
        box = [[value()] if self.main else []]
        if self.count > 1:
            with self._talking():
                dist.broadcast_object_list(box)
        return box[0][0]

    def from_main_at_leisure(self, what: str, value: Callable[[], T]) -> T:
        """`from_main` where the main process works for longer than `PATIENCE`; `what` is its name, a new one each time.

        A collective operation would end the waiting processes after that; they look at the board instead.
        """
        if self.count == 1:
            return value()
        assert self.board is not None, "several processes without a board"
        if self.main:
            found = value()
            with self._talking():
                self.board.set(f"comat/done/{what}", "")
            return self.from_main(lambda: found)
        while True:
            with self._talking():
                if self.board.check([f"comat/done/{what}"]):
                    return self.from_main(value)
            time.sleep(ASKING)

    def tensors_from_main(self, tensors: Mapping[str, Tensor], device: torch.device) -> dict[str, Tensor]:
        """The named tensors of the main process, on all, on the CPU; the others' own are not looked at.

        Names, shapes and types alone are pickled. The tensors go one after the other through `device`, on which the
        processes talk, so that beside what is received there is room for the largest of them, not for all.
        """
        if self.count == 1:
            return dict(tensors)
        listed = self.from_main(lambda: [(name, value.shape, value.dtype) for name, value in tensors.items()])
        found: dict[str, Tensor] = {}
        for name, shape, dtype in listed:
            sent = tensors[name].to(device) if self.main else torch.empty(shape, dtype=dtype, device=device)
            with self._talking():
                dist.broadcast(sent, 0)
            found[name] = tensors[name] if self.main else sent.cpu()
        return found

    def sum_gradients(self, weights: Sequence[Tensor], values: dict[str, float]) -> dict[str, float]:
        """Sum the gradients of float32 `weights`, in place, and `values` over the processes, in one reduction.

        A weight without gradient on every process keeps none, so that an optimizer passes it over.
        """
        if self.count == 1:
            return values
        numbers = [*(float(w.grad is not None) for w in weights), *values.values()]
        rows = [torch.zeros_like(w) if w.grad is None else w.grad for w in weights]
        flat = torch.cat([*(row.flatten() for row in rows), torch.tensor(numbers, device=rows[0].device)])
        with self._talking():
            dist.all_reduce(flat)
        *summed, tail = flat.split([*(w.numel() for w in weights), len(numbers)])
        found = tail.tolist()
        for weight, row, holders in zip(weights, summed, found, strict=False):
            weight.grad = row.view_as(weight) if holders else None
        return dict(zip(values, found[len(weights) :], strict=True))

    @contextlib.contextmanager
    def directory(
        self, stage: str, values: Mapping[str, object], models: Path, inputs: Iterable[Path]
    ) -> Iterator[Path]:
        """`stage_directory` for all, held by the main process; the others only learn its name."""
        nowhere = contextlib.nullcontext(Path())
        with stage_directory(stage, values, models, inputs) if self.main else nowhere as work:
            yield self.from_main(lambda: work)

    def wait(self) -> None:
        """Until all processes are here."""
        if self.count > 1:
            with self._talking():
                dist.barrier()

    @contextlib.contextmanager
    def _talking(self) -> Iterator[None]:
        """A process that is gone is one line here, not a traceback; and nobody goes on without the launcher."""
        if os.getppid() != self.launcher:
            raise UserError("the launcher of this process has ended; run the stage again to go on")
        try:
            yield
        except RuntimeError as error:
            raise UserError(f"lost another process of this run ({first_line(error)}); run again to go on") from None


ALONE = Processes()


@contextlib.contextmanager
def join(device: str) -> Iterator[Processes]:
    """The processes that a launcher has started with this one, each on its own device; without a launcher this alone.

    What goes wrong on one process ends them all; the first to fail says why, the others are silent.

    Args:
        device: of the parameters: auto, cpu or cuda.

    Raises:
        UserError: if `device` is a certain one for several processes, or they do not meet within `PATIENCE`.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield ALONE
        return
    if ":" in device:
        raise UserError(f"device is {device}: expected auto, cuda or cpu where several processes run, each on its own")
    from accelerate import PartialState

    try:
        state = PartialState(cpu=device == "cpu" or not torch.cuda.is_available(), timeout=PATIENCE)
        keeper = dist.TCPStore(os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"]), is_master=False)
        # A launcher that starts the processes anew may keep the store, with the notes of those before.
        board = dist.PrefixStore(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0"), keeper)
    except RuntimeError as error:
        raise UserError(
            f"the {os.environ['WORLD_SIZE']} processes of this run did not meet at {os.environ['MASTER_ADDR']}:"
            f"{os.environ['MASTER_PORT']} ({first_line(error)}); see that all of them are started, or ask for one"
        ) from None
    try:
        processes = Processes(state.process_index, state.num_processes, os.getppid(), board)
        yield processes
        processes.wait()  # until the main process has published
    except Exception as error:
        if explained(error) is not None and not _is_first(board):
            raise SystemExit(1) from None
        raise
    dist.destroy_process_group()


def _is_first(board: dist.Store) -> bool:
    """Whether no other process has failed before this one."""
    try:
        return board.add("comat/failed", 1) == 1
    except RuntimeError:  # its keeper is gone: it failed, and one before it or itself said why; or the launcher does
        return False
