"""Where nouns and attributes look: the share of their attention inside the true mask, base and tuned (cf. Fig. 5).

    python -m benchmarks.attention_share [--base data/warmup] [--lora data/train/lora] [--scenes 100]

Renders of two coloured objects (no scene of training) are noised to the level of each `--timesteps`, and the denoiser
is asked with their caption. For every entity, over heads and map layers: the share of a word's attention, over pixels,
that falls inside its own object, inside the other object, and what an even attention would give ("area").
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from comat.diffusion.attention import recorded_maps
from comat.diffusion.backbones import Backbone
from comat.diffusion.load import load_backbone
from comat.diffusion.lora import load_lora
from comat.method.attribute_concentration import resize_mask
from comat.params import Params, load
from comat.randomness import generator, noise
from comat.shapes.recipe.data import CATEGORIES, Example, clean_examples
from comat.shapes.world.render import render

SEED = 4_000
COLUMNS = ("noun, own", "noun, other", "colour, own", "colour, other", "area")


def scenes(count: int) -> list[Example]:
    weights = tuple(int(category == "color") for category in CATEGORIES)
    return [e for e in clean_examples(4 * count, seed=SEED, weights=weights) if len(e.scene.objects) == 2][:count]


def words(backbone: Backbone, example: Example) -> list[tuple[list[int], list[int]]]:
    """For each object the columns of its noun and of its colour."""
    said = backbone.words(example.caption)
    found = []
    for group in example.spec.groups:
        nouns = [column for column, word in enumerate(said) if word == group.noun]
        colours = [column for column, word in enumerate(said) if word == group.colour]
        found.append((nouns, colours))
    return found


@torch.no_grad()
def shares(backbone: Backbone, params: Params, examples: list[Example], tau: int) -> np.ndarray:
    """The mean of each of COLUMNS at training timestep `tau` of a diffusion model."""
    size, device = params.resolution, backbone.device
    sampler = backbone.sampler(params.scheduler, params.sampling_steps, backbone.latent_shape(size)[1:])
    index, rows = sampler.start(tau), defaultdict(list)
    for number, example in enumerate(examples):
        picture, masks = render(example.scene, size)
        latents = backbone.encode_images(torch.from_numpy(picture).to(device).permute(2, 0, 1)[None].float() / 255)
        own = [generator(SEED, "attention share", tau, number)]
        z = sampler.noisy(latents, noise(latents.shape[1:], own).to(device), [index])
        prompt = backbone.encode_prompts([example.caption])
        with recorded_maps(backbone.denoiser, backbone.map_layers()) as recording:
            backbone.denoise(sampler.seen(z, index), sampler.timesteps[index].to(device), prompt, params.guidance_scale)
        maps = recording.collect(backbone.layout(z.shape[-2:]), 1)
        order = [[o.noun for o in example.scene.objects].index(g.noun) for g in example.spec.groups]
        drawn = torch.from_numpy(np.stack([*masks])).to(device)
        for layer in maps.values():
            small = resize_mask(drawn, (layer.shape[2], layer.shape[3])).float()[order]
            for entity, (nouns, colours) in enumerate(words(backbone, example)):
                for name, columns in (("noun", nouns), ("colour", colours)):
                    inside = _inside(layer[0], columns, small)
                    rows[f"{name}, own"].append(inside[entity])
                    rows[f"{name}, other"].append(inside[1 - entity])
                rows["area"].append(float(small[entity].mean()))
    return np.array([np.mean(rows[name]) for name in COLUMNS])


def _inside(layer: Tensor, columns: list[int], masks: Tensor) -> list[float]:
    """The share of the attention to `columns` inside each of masks (N, h, w); layer is (heads, h, w, L)."""
    attention = layer[..., columns].sum(-1).mean(0)
    return [float((attention * mask).sum() / attention.sum()) for mask in masks]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--params", type=Path, default=Path("params.yaml"))
    parser.add_argument("--base", type=Path, default=Path("data/warmup"), help="the folder of the warm-up")
    parser.add_argument(
        "--lora", type=Path, action="append", help="several are compared; data/train/lora if it is there"
    )
    parser.add_argument("--scenes", type=int, default=100)
    parser.add_argument("--timesteps", type=int, nargs="+", default=[200, 400, 600, 800])
    options = parser.parse_args()
    params, examples = load(options.params), scenes(options.scenes)
    own = Path("data/train/lora")
    loras: list[Path | None] = [None, *(options.lora or ([own] if own.is_dir() else []))]
    print(f"{'':<28}{'tau':>6}" + "".join(f"{name:>15}" for name in COLUMNS))
    for lora in loras:
        backbone = load_backbone(params, options.base)
        if lora:
            load_lora(backbone, lora)
        for tau in options.timesteps:
            found = shares(backbone, params, examples, tau)
            print(f"{lora or 'base'!s:<28}{tau:>6}" + "".join(f"{100 * value:>14.1f}%" for value in found), flush=True)


if __name__ == "__main__":
    main()
