"""Attribute concentration (Sec. 4.2): the tokens of an entity attend to the entity's area, and nowhere else."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

EPSILON = 1e-6


@dataclass(frozen=True)
class Entity:
    """A noun with its attributes: `noun` to segment by, `tokens` the positions of all its tokens in the prompt, or of
    the noun's alone.
    """

    noun: str
    tokens: tuple[int, ...]


def resize_mask(mask: Tensor, size: tuple[int, int]) -> Tensor:
    """Resize (N, H, W) bool masks to a map's (h, w): a cell belongs to the mask if at least half of it is covered.

    On a coarse map a small object may cover half of no cell; its most covered cell is kept then, so that only a mask
    that is empty in the image is empty on the map.
    """
    cover = F.adaptive_avg_pool2d(mask.float(), size)
    most = cover.amax((1, 2), keepdim=True)
    return cover >= torch.where(most > 0, most.clamp(max=0.5), 1.0)


def with_masks(
    entities: Sequence[Sequence[Entity]], masks: Sequence[Tensor]
) -> tuple[list[list[Entity]], list[Tensor]]:
    """Without the entities whose mask is empty, each image's own (entities, H, W) bool.

    On a real image the caption is right and the segmenter has missed it; TokenCompose leaves such nouns out as well.
    """
    found = torch.cat([own.flatten(1).any(1) for own in masks]).tolist()  # at once: each read waits for the device
    kept = []
    for group in entities:
        rows, found = found[: len(group)], found[len(group) :]
        kept.append([place for place, there in enumerate(rows) if there])
    left = [[group[place] for place in places] for group, places in zip(entities, kept, strict=True)]
    return left, [
        own[torch.tensor(places, dtype=torch.long, device=own.device)] for own, places in zip(masks, kept, strict=True)
    ]


def region_loss(maps: Tensor, tokens: Tensor, masks: Tensor, squared: bool = False) -> Tensor:
    """The region level of Eq. 4 and 5 without alpha, (N,) for N entities.

    Sum over the entity's tokens of the share of their attention outside its mask minus the share inside, mean over
    heads; an entity with an empty mask has a constant loss, so no gradient. `squared` is TokenCompose's form, as
    published: mean over the tokens of (1 - the mean over heads of the share inside)^2.

    Args:
        maps: (N, heads, h, w, L) attention probabilities of the prompt that each entity belongs to.
        tokens: (N, L) bool, the entity's tokens.
        masks: (N, h, w) bool.
    """
    share = maps / maps.sum((2, 3), keepdim=True).clamp(min=EPSILON)
    inside = (share * masks[:, None, :, :, None]).sum((2, 3))
    if squared:
        present = masks.flatten(1).any(1).float()[:, None]
        per_token = (1 - inside.mean(1)).square() * present
        return (per_token * tokens).sum(1) / tokens.sum(1).clamp(min=1)
    return (((1 - inside) - inside) * tokens[:, None]).sum(2).mean(1)


def pixel_loss(maps: Tensor, tokens: Tensor, masks: Tensor) -> Tensor:
    """The pixel level of Eq. 4 and 5 without beta, (N,): cross-entropy of the entity's attention at every pixel.

    Args:
        maps: (N, h, w, L) probabilities, averaged over heads and over the layers of this size.
        tokens: (N, L) bool.
        masks: (N, h, w) bool; where it is empty, no pixel may attend to the entity.
    """
    # Where image and text attend jointly, a pixel gives a part to the image; of what the text gets this is the share.
    text = maps.sum(3).clamp(min=EPSILON)
    attention = ((maps * tokens[:, None, None]).sum(3) / text).clamp(EPSILON, 1 - EPSILON)
    return -torch.where(masks, attention.log(), (1 - attention).log()).mean((1, 2))


def attribute_concentration_loss(
    maps: Mapping[str, Tensor],
    entities: Sequence[Sequence[Entity]],
    masks: Sequence[Tensor],
    alpha: float,
    beta: float,
    squared: bool = False,
    reduction: str = "sum",
) -> Tensor:
    """L_pos + L_neg of Eq. 4 and 5, summed over the batch: a scalar.

    `reduction`, "sum" or "mean", is of the region level over layers and of the pixel level over sizes of maps; both are
    averaged over the N entities of a prompt.

    Args:
        maps: layer → (B, heads, h, w, L) attention probabilities.
        entities: the entities of each of the B prompts.
        masks: for each prompt (entities, H, W) bool.
    """
    first = next(iter(maps.values()))
    rows = [row for row, group in enumerate(entities) for _ in group]
    if not rows:
        return first.new_zeros(())
    weight = first.new_tensor([1 / len(entities[row]) for row in rows])
    where = torch.tensor(rows, device=first.device)
    tokens = torch.zeros(len(rows), first.shape[-1], dtype=torch.bool)
    for row, entity in enumerate(e for group in entities for e in group):
        tokens[row, list(entity.tokens)] = True
    tokens = tokens.to(first.device)
    full = torch.cat([mask for mask in masks if len(mask)]).to(first.device)
    by_size: dict[tuple[int, int], list[Tensor]] = {}
    small: dict[tuple[int, int], Tensor] = {}
    regions = []
    for layer in maps.values():
        size = (layer.shape[2], layer.shape[3])
        small.setdefault(size, resize_mask(full, size))
        picked = layer[where]
        if alpha:
            regions.append(region_loss(picked, tokens, small[size], squared))
        by_size.setdefault(size, []).append(picked.mean(1))
    loss = first.new_zeros(())
    if alpha:
        loss = loss + alpha * (reduced(regions, reduction) * weight).sum()
    if beta:
        pixels = [pixel_loss(torch.stack(group).mean(0), tokens, small[size]) for size, group in by_size.items()]
        loss = loss + beta * (reduced(pixels, reduction) * weight).sum()
    return loss


def reduced(terms: Sequence[Tensor], reduction: str) -> Tensor:
    """The "sum" or "mean" of equally shaped terms.

    Raises:
        ValueError: for another reduction.
    """
    stacked = torch.stack(list(terms))
    if reduction == "sum":
        return stacked.sum(0)
    if reduction == "mean":
        return stacked.mean(0)
    raise ValueError(f"attribute_reduction is {reduction!r}: expected 'sum' or 'mean'")
