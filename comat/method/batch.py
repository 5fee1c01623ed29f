"""What one iteration trains on, and the share of it that a process takes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from comat.method.attribute_concentration import Entity


@dataclass(frozen=True)
class RealImages:
    """Latents (G, C, h, w) of real images, the G captions, and the entities of each where a loss asks for them."""

    latents: Tensor
    captions: Sequence[str]
    entities: Sequence[Sequence[Entity]] = ()

    def __len__(self) -> int:
        return len(self.captions)

    def __getitem__(self, rows: slice) -> RealImages:
        return RealImages(self.latents[rows], self.captions[rows], self.entities[rows])


NO_IMAGES = RealImages(torch.empty(0), ())


@dataclass(frozen=True)
class Batch:
    """What one iteration trains on, or a process's share of it.

    `reference` (B, C, h, w): what the discriminator is to call real, by default the original model's latents of
    `prompts`; None where there is none. A share knows the `whole` batch, over which losses are averaged, and where in
    it its first prompt and real image stand, by which noise is drawn.
    """

    iteration: int
    prompts: Sequence[str]
    entities: Sequence[Sequence[Entity]]
    reference: Tensor | None = None
    real: RealImages = NO_IMAGES
    first: int = 0
    first_real: int = 0
    whole: Batch | None = None

    @property
    def size(self) -> int:
        """Prompts of the whole batch."""
        return len((self.whole or self).prompts)

    @property
    def size_real(self) -> int:
        """Real images of the whole batch."""
        return len((self.whole or self).real)

    def share(self, rank: int, count: int) -> Batch:
        """The part of process `rank` of `count`; whoever has fewer prompts has more real images."""
        rows, real = _block(len(self.prompts), rank, count), _block(len(self.real), count - 1 - rank, count)
        return replace(
            self,
            prompts=self.prompts[rows],
            entities=self.entities[rows],
            reference=None if self.reference is None else self.reference[rows],
            real=self.real[real],
            first=rows.start,
            first_real=real.start,
            whole=self,
        )


def _block(total: int, place: int, count: int) -> slice:
    """One of `count` blocks of nearly equal size."""
    return slice(total * place // count, total * (place + 1) // count)
