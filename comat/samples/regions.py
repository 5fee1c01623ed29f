"""Regional composition (App. B.2): a plan of regions with descriptions of their own, drawn by complementary regional
diffusion (Yang et al., "Mastering Text-to-Image Diffusion: Recaptioning, Planning, and Generating with Multimodal
LLMs", ICML 2024)."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from pathlib import Path
from typing import Annotated, Any, Self

import torch
from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator
from torch import Tensor

from comat.diffusion.backbones import Backbone, PromptEmbeddings
from comat.diffusion.schedulers import Sampler
from comat.errors import UserError
from comat.samples.methods.base import Told
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
class _Regional:
    backbone: Backbone
    prompts: Sequence[PromptEmbeddings]
    """Of each plan the whole prompt, then its regions'."""
    weights: Sequence[Tensor]
    """Of each plan (1 + N, 1, h, w): they add up to 1 everywhere."""
    guidance_scale: float

    def before(self, z: Tensor, index: int) -> Tensor:
        return z

    def guided(self, x: Tensor, t: Tensor) -> Tensor:
        """z = beta z_base + (1 - beta) z_cat, where z_cat is made of each region's own (Eq. 4 and 5), here of guided
        predictions: that of the whole image for each description, of which the region counts."""
        return torch.stack([self._one(x[row], t, row) for row in range(len(x))])

    def _one(self, x: Tensor, t: Tensor, row: int) -> Tensor:
        prompts = self.prompts[row]
        same = x.expand(len(prompts), *x.shape)
        return (self.weights[row] * self.backbone.guided(same, t, prompts, self.guidance_scale)).sum(0)


@dataclass(frozen=True)
class Regional:
    """Draws a plan for each prompt, which is the plan's whole one."""

    plans: Sequence[Plan]
    latent_size: tuple[int, int]

    def begin(self, backbone: Backbone, _sampler: Sampler, told: Sequence[Told], guidance_scale: float) -> _Regional:
        assert [one.text for one in told] == [plan.base_prompt for plan in self.plans]
        prompts, weights = [], []
        for plan in self.plans:
            prompts.append(backbone.encode_prompts([plan.base_prompt, *plan.regional_prompt]))
            regions = masks(plan, self.latent_size).float() * (1 - plan.base_ratio)
            whole = torch.full((1, *self.latent_size), plan.base_ratio)
            weights.append(torch.cat([whole, regions])[:, None].to(backbone.device))
        return _Regional(backbone, prompts, weights, guidance_scale)
