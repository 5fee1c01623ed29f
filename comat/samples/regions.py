"""Regional composition (App. B.2): a plan of regions with descriptions of their own, drawn by complementary regional
diffusion (Yang et al., "Mastering Text-to-Image Diffusion: Recaptioning, Planning, and Generating with Multimodal
LLMs", ICML 2024)."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from pathlib import Path
from typing import Annotated, Any, Self

import torch
import torch.nn.functional as F
from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator
from torch import Tensor, nn

from comat.diffusion.backbones import Backbone
from comat.diffusion.schedulers import Sampler
from comat.errors import UserError
from comat.samples.methods.base import Plain, Told
from comat.storage.json_files import read_json

BREAK = re.compile(r"\s*\bBREAK\b\s*")
MOST_REGIONS = 16


class Plan(BaseModel):
    """A plan as the planner of RPG writes it.

    `split_ratio`: rows from top to bottom, apart by ";"; of each row its height, then the widths of its columns from
    left to right, relative to each other ("1;2,1,1": a row, and one twice as high of two columns). Without ";" the
    widths of columns. `regional_prompt`: a description for each region, row by row, a list or one text with BREAK
    between them. `base_ratio`: how much the whole prompt counts beside the regions', in [0, 1].
    """

    model_config = ConfigDict(extra="forbid", strict=True)

    base_prompt: Annotated[str, Field(min_length=1)]
    split_ratio: str
    regional_prompt: tuple[Annotated[str, Field(min_length=1)], ...]
    base_ratio: Annotated[float, Field(ge=0, le=1)] = 0.3

    @field_validator("regional_prompt", mode="before")
    @classmethod
    def _split(cls, given: Any) -> Any:
        parts = BREAK.split(given.strip()) if isinstance(given, str) else given
        return tuple(parts) if isinstance(parts, list) else parts

    @model_validator(mode="after")
    def _fits(self) -> Self:
        count = len(self.boxes())
        if count != len(self.regional_prompt):
            found = len(self.regional_prompt)
            raise ValueError(f"split_ratio {self.split_ratio!r} makes {count} regions, regional_prompt holds {found}")
        if count > MOST_REGIONS:
            raise ValueError(f"{count} regions: expected at most {MOST_REGIONS}")
        return self

    def boxes(self) -> list[tuple[float, float, float, float]]:
        """(top, bottom, left, right) of each region, shares of the image.

        Raises:
            ValueError: if `split_ratio` holds other than positive numbers.
        """
        rows = [self._numbers(row) for row in self.split_ratio.split(";")]
        if len(rows) == 1:
            rows = [[1.0, *rows[0]]]
        heights = _edges([row[0] for row in rows])
        return [
            (top, bottom, left, right)
            for (top, bottom), (_, *widths) in zip(pairwise(heights), rows, strict=True)
            for left, right in pairwise(_edges(widths or [1.0]))
        ]

    def _numbers(self, row: str) -> list[float]:
        try:
            numbers = [float(number) for number in row.split(",")]
        except ValueError:
            numbers = [-1.0]
        if not all(0 < number < 1e6 for number in numbers):
            raise ValueError(f"split_ratio {self.split_ratio!r}: expected positive numbers apart by ',' and ';'")
        return numbers


def _edges(parts: Sequence[float]) -> list[float]:
    """Where parts of the given sizes begin and end, from 0 to 1."""
    sums = [0.0, *accumulate(parts)]
    return [at / sums[-1] for at in sums]


def read_plan(path: Path) -> Plan:
    """Read a plan.

    Raises:
        UserError: if the file cannot be read or is no plan; says which field, and what was expected.
    """
    return read_json(path, Plan, "a plan of regions", "docs/evaluation.md shows one")


def masks(plan: Plan, size: tuple[int, int]) -> Tensor:
    """Which cells of latents of (h, w) belong to each region, (N, h, w) bool: each to one.

    Raises:
        UserError: if a region has none.
    """
    rows, columns = ((torch.arange(count) + 0.5) / count for count in size)
    found = torch.stack(
        [
            ((rows >= top) & (rows < bottom))[:, None] & ((columns >= left) & (columns < right))
            for top, bottom, left, right in plan.boxes()
        ]
    )
    for number, region in enumerate(found):
        if not region.any():
            raise UserError(
                f"region {number + 1} of {plan.split_ratio!r} ({plan.regional_prompt[number][:40]!r}) is narrower than "
                f"a cell of latents of {size[0]} x {size[1]}; make it larger, or draw at a higher resolution"
            )
    return found


@dataclass
class _Regional(Plain):
    texts: Sequence[Tensor]
    """Of each place in the plans its descriptions, (B, L, D); of plans with fewer regions anything."""
    weights: Tensor
    """(B, 1 + places, h, w), the whole prompt's first: they add up to 1 everywhere."""

    def guided(self, x: Tensor, t: Tensor) -> Tensor:
        with self._by_regions(x.shape[-2:]):
            return super().guided(x, t)

    @contextlib.contextmanager
    def _by_regions(self, latent_size: Sequence[int]) -> Iterator[None]:
        """Let every cross-attention say beta z_base + (1 - beta) z_cat, where z_cat is, in each region, what it says of
        the region's own description (Eq. 4 and 5), for the samples with a prompt, which are the last."""
        layout = self.backbone.layout(latent_size)

        def composed(layer: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Tensor) -> Tensor:
            hidden = args[0] if args else kwargs["hidden_states"]
            size = layout(hidden.shape[1], 0).size
            share = F.adaptive_avg_pool2d(self.weights, size).flatten(2)[..., None].to(output.dtype)
            count = len(self.weights)
            said = share[:, 0] * output[-count:]
            for place, text in enumerate(self.texts, start=1):
                own = layer.forward(hidden[-count:], encoder_hidden_states=text.to(hidden.dtype))
                said = said + share[:, place] * own
            return torch.cat([output[:-count], said])

        layers = [self.backbone.denoiser.get_submodule(name) for name in self.backbone.attention_layers()]
        hooks = [layer.register_forward_hook(composed, with_kwargs=True) for layer in layers]
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()


@dataclass(frozen=True)
class Regional:
    """Draws a plan for each prompt, which is the plan's whole one."""

    plans: Sequence[Plan]
    latent_size: tuple[int, int]

    def begin(self, backbone: Backbone, _sampler: Sampler, told: Sequence[Told], guidance_scale: float) -> _Regional:
        if backbone.TEXT != "cross":
            raise UserError(
                "regions are told apart in cross-attention that reads the text encoders' words as they are, as that of "
                "Stable Diffusion 1, 2 and XL; this base model has none"
            )
        assert [one.text for one in told] == [plan.base_prompt for plan in self.plans]
        prompts = backbone.encode_prompts([plan.base_prompt for plan in self.plans])
        places = max(len(plan.regional_prompt) for plan in self.plans)
        weights = torch.zeros(len(self.plans), 1 + places, *self.latent_size)
        texts = prompts.tokens[None].repeat(places, 1, 1, 1)
        for row, plan in enumerate(self.plans):
            own = len(plan.regional_prompt)
            texts[:own, row] = backbone.encode_prompts(plan.regional_prompt).tokens
            weights[row, 0] = plan.base_ratio
            weights[row, 1 : 1 + own] = masks(plan, self.latent_size).float() * (1 - plan.base_ratio)
        return _Regional(backbone, prompts, guidance_scale, list(texts), weights.to(backbone.device))
