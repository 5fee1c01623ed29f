"""Warm-up and CoMat in one LoRA for the stock base: what the truncation does to weights and to images.

    python -m benchmarks.one_lora [--data data] [--ranks 4 16 64 128] [--count 90]

Of a finished run on the shapes world: `count` of its held-out prompts, each drawn from noise of its own by the stock
base, by the tuned model, and by the stock base with the LoRA that `comat export --rank` writes. Printed are the error
in the weights (relative, Frobenius), the size of the file, the mean absolute difference of the images from those of the
tuned model (of 255), how many the oracle judges as it judges those, and how many it finds right.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from comat.diffusion.backbones import Backbone
from comat.diffusion.load import load_backbone
from comat.diffusion.sampling import decoded, sample_latents
from comat.finished.low_rank import LowRank, low_rank
from comat.finished.weights import FinishedRun, finished_run
from comat.params import Params, load
from comat.randomness import python_random, stratified
from comat.shapes.world.captions import parse_prompt
from comat.shapes.world.oracle import judge
from comat.storage.images import to_bytes
from comat.storage.tables import IMAGE_INDEX, read_table


def prompts_of(data: Path, count: int) -> list[str]:
    """Held-out prompts, of each category its share."""
    rows = {row["prompt_id"]: row for row in read_table(data / "samples/index.parquet", IMAGE_INDEX)}
    chosen = stratified([*rows.values()], count, lambda row: row["category"], python_random(0, "one LoRA"))
    return [row["text"] for row in chosen]


def set_weights(denoiser: nn.Module, weights: Mapping[str, Tensor]) -> None:
    with torch.no_grad():
        for name, parameter in denoiser.named_parameters():
            parameter.copy_(weights[name])


def with_lora(stock: Mapping[str, Tensor], made: LowRank) -> dict[str, Tensor]:
    """The stock base's weights with the LoRA in them."""
    weights = dict(stock)
    for layer, own in made.lora.items():
        name = f"{layer}.weight"
        weights[name] = stock[name] + (own.up.flatten(1) @ own.down.flatten(1)).view_as(stock[name])
    return weights


@torch.no_grad()
def drawn(params: Params, backbone: Backbone, prompts: Sequence[str]) -> np.ndarray:
    """(N, H, W, 3) uint8."""
    images: list[np.ndarray] = []
    for at in range(0, len(prompts), params.samples.batch_size):
        part = prompts[at : at + params.samples.batch_size]
        keys = [("one LoRA", at + place) for place in range(len(part))]
        z = sample_latents(backbone, params, part, keys, "benchmark", params.resolution)
        images += [to_bytes(image) for image in decoded(backbone, z)]
    return np.stack(images)


def models(run: FinishedRun, backbone: Backbone, ranks: Sequence[int]) -> Iterator[tuple[str, str, str]]:
    """Name, error and megabytes of each model, which stands in `backbone` when it is yielded."""
    stock = {name: weight.detach().clone() for name, weight in backbone.denoiser.named_parameters()}
    set_weights(backbone.denoiser, dict(run.tuned()))
    yield "tuned", "", ""
    set_weights(backbone.denoiser, stock)
    yield "stock base", "", ""
    for rank in ranks:
        made = low_rank(run.changes(), rank, torch.device("cpu"))
        set_weights(backbone.denoiser, with_lora(stock, made))
        size = sum(4 * part.numel() for own in made.lora.values() for part in (own.down, own.up)) / 1e6
        yield f"rank {rank}", f"{made.error:.1%}", f"{size:.1f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("data"))
    parser.add_argument("--ranks", type=int, nargs="+", default=[4, 16, 64, 128])
    parser.add_argument("--count", type=int, default=90)
    args = parser.parse_args()
    run = finished_run(load(Path("params.yaml")), args.data)
    backbone = load_backbone(run.params)
    prompts = prompts_of(args.data, args.count)
    specs = [parse_prompt(prompt) for prompt in prompts]
    wanted: np.ndarray | None = None
    print("| model | error in the weights | MB | difference of 255 | judged alike | right |\n|---|---|---|---|---|---|")
    for name, error, size in models(run, backbone, args.ranks):
        images = drawn(run.params, backbone, prompts)
        right = np.array([judge(image, spec).correct for image, spec in zip(images, specs, strict=True)])
        if wanted is None:
            wanted, judged = images, right
        difference = np.abs(images.astype(int) - wanted).mean()
        alike = f"{(right == judged).mean():.1%}"
        print(f"| {name} | {error} | {size} | {difference:.1f} | {alike} | {right.mean():.1%} |", flush=True)


if __name__ == "__main__":
    main()
