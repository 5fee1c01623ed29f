"""A plan of regions drawn by the base and the tuned model, from the same noise (App. B.2)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from torch import Tensor

from comat.diffusion.backbones import Backbone
from comat.diffusion.lora import in_turn
from comat.diffusion.sampling import decoded, in_batches
from comat.errors import UserError
from comat.finished.generate import PURPOSE, finished_model
from comat.params import Params
from comat.reporting.grid import comparison_grid
from comat.samples.methods.base import Told, sample_by
from comat.samples.regions import Plan, Regional, masks, read_plan
from comat.storage.images import to_bytes, write_image


def compose(params: Params, data: Path, plan: Path, seeds: int, out: Path) -> None:
    """Write one picture: `seeds` images of the plan by the base model, and below them by the tuned one."""
    if not plan.is_file():
        raise UserError(f"{plan}: no such file; expected a plan of regions, as docs/evaluation.md shows one")
    own = read_plan(plan)
    params, backbone = finished_model(params, data, [own.base_prompt, *own.regional_prompt])
    masks(own, backbone.latent_shape(params.resolution)[1:])  # before anything is drawn
    keys = [(PURPOSE, number) for number in range(seeds)]
    images = {name: composed(params, backbone, [own] * seeds, keys) for name in in_turn(backbone, data / "train/lora")}
    write_image(
        out, comparison_grid([own.base_prompt], {name: [to_bytes(i) for i in own] for name, own in images.items()})
    )


def composed(
    params: Params, backbone: Backbone, plans: Sequence[Plan], keys: Sequence[tuple[str, int]]
) -> list[Tensor]:
    """An image (3, H, W) of each plan; a key decides the noise."""
    size = backbone.latent_shape(params.resolution)[1:]
    images: list[Tensor] = []
    for part in in_batches(list(zip(plans, keys, strict=True)), params.samples.batch_size, "images"):
        of, own = [plan for plan, _ in part], [key for _, key in part]
        told = [Told(plan.base_prompt) for plan in of]
        images += decoded(backbone, sample_by(Regional(of, size), backbone, params, told, own, PURPOSE))
    return images
