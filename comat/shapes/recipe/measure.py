"""What the world promises, measured: `python -m comat.shapes.recipe.measure` writes `measurements.json`."""

from __future__ import annotations

import argparse
import json
import random
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL, DDPMScheduler, StableDiffusion3Pipeline, StableDiffusionXLPipeline
from tqdm import tqdm
from transformers import AutoTokenizer, CLIPSegForImageSegmentation

from comat.randomness import generator
from comat.shapes.recipe.base import DOMINANT
from comat.shapes.recipe.captioner_measure import HELD_OUT, preferences, world_captioner
from comat.shapes.recipe.data import CATEGORIES, clean_examples, images, noun_masks, to_rgb, unit
from comat.shapes.world.captions import describe
from comat.shapes.world.oracle import judge
from comat.shapes.world.scenes import NOUNS, Spec, sample_spec

Pipeline = StableDiffusionXLPipeline | StableDiffusion3Pipeline
EMPTY = 0.01
"""Share of the pixels up to which a mask counts as empty."""


def measure_oracle(models: Path, count: int = 2000, size: int = 64) -> dict[str, float]:
    """Share of renders, and of their reconstructions by the autoencoder, that the oracle finds entirely right."""
    examples = clean_examples(count, seed=HELD_OUT, weights=(1, 1, 1, 1, 1))
    rows = images(examples, size)
    vae = AutoencoderKL.from_pretrained(models / "base" / "vae", torch_dtype=torch.float32).eval()
    with torch.no_grad():
        decoded = torch.cat([vae.decode(vae.encode(unit(part)).latent_dist.mean).sample for part in rows.split(50)])
    return {
        "renders": _share(
            judge(row.permute(1, 2, 0).numpy(), e.spec).correct for row, e in zip(rows, examples, strict=True)
        ),
        "reconstructions": _share(judge(to_rgb(row), e.spec).correct for row, e in zip(decoded, examples, strict=True)),
    }


def measure_captioner(models: Path) -> dict[str, float]:
    """As `preferences`, of the captioner that the default run is taught by."""
    return preferences(world_captioner("blip", models / "captioner"))


@torch.no_grad()
def measure_segmenter(models: Path, count: int = 300) -> dict[str, float]:
    """Mean intersection over union of the nouns present, and share of the absent nouns with an empty mask."""
    model = CLIPSegForImageSegmentation.from_pretrained(models / "segmenter", torch_dtype=torch.float32).eval()
    tokenizer = AutoTokenizer.from_pretrained(models / "segmenter", trust_remote_code=False)
    questions = tokenizer(list(NOUNS), padding="max_length", return_tensors="pt")
    overlaps, empties = [], []
    for example in tqdm(clean_examples(count, seed=HELD_OUT + 2), desc="segmenter"):
        x = unit(images([example], 64)).expand(len(NOUNS), -1, -1, -1)
        found = model(**questions, pixel_values=x).logits.numpy() > 0
        for mask, truth in zip(found, noun_masks(example, 64), strict=True):
            if truth.any():
                overlaps.append((mask & truth).sum() / (mask | truth).sum())
            else:
                empties.append(mask.mean() <= EMPTY)
    return {"iou": float(np.mean(overlaps)), "absent_empty": _share(empties)}


def measure_base(models: Path, size: int, count: int = 200, steps: int = 20, guidance: float = 5.0) -> dict[str, dict]:
    """The base on prompts with dominant and with uniform colours: right, object missing, attribute wrong."""
    pipe = StableDiffusionXLPipeline.from_pretrained(models / "base", torch_dtype=torch.float32)
    pipe.scheduler = DDPMScheduler.from_config(pipe.scheduler.config, clip_sample=False)
    pipe.set_progress_bar_config(disable=True)
    ask: dict[str, object] = {"height": size, "width": size, "num_inference_steps": steps, "guidance_scale": guidance}
    return {name: judge_samples(pipe, specs, f"base at {size} px", ask) for name, specs in asked_of_base(count).items()}


def asked_of_base(count: int) -> dict[str, list[Spec]]:
    """`count` specs in uniform colours, and the same in their shapes' dominant ones."""
    rng = random.Random("base")
    uniform = [sample_spec(c, rng) for c in rng.choices(CATEGORIES[1:], (100, 70, 40, 60), k=count)]
    dominant = [replace(s, groups=tuple(replace(g, colour=DOMINANT[g.noun]) for g in s.groups)) for s in uniform]
    return {"dominant": dominant, "uniform": uniform}


def judge_samples(pipe: Pipeline, specs: list[Spec], title: str, ask: Mapping[str, object]) -> dict[str, float]:
    """The oracle's verdicts on images that a stock pipeline draws, called with `ask` besides the prompts."""
    verdicts = []
    for start in tqdm(range(0, len(specs), 20), desc=title):
        part = specs[start : start + 20]
        own = [generator(0, "measure", start + i) for i in range(len(part))]
        pictures = pipe([describe(spec) for spec in part], generator=own, output_type="np", **ask).images
        verdicts += [
            judge((row * 255).round().astype(np.uint8), spec) for row, spec in zip(pictures, part, strict=True)
        ]
    return {
        "right": _share(v.correct for v in verdicts),
        "object_missing": _share(v.ignores for v in verdicts),
        "attribute_wrong": _share(v.mismatches for v in verdicts),
        "relation_wrong": _share(v.attributes and not v.relation for v in verdicts),
        "count": len(verdicts),
    }


def _share(flags: Iterable[object]) -> float:
    return float(np.mean([bool(flag) for flag in flags]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--prompts", type=int, default=200, help="that the base is asked, of each kind")
    options = parser.parse_args()
    result = {
        "oracle": measure_oracle(options.models),
        "captioner": measure_captioner(options.models),
        "segmenter": measure_segmenter(options.models),
        "base_native": measure_base(options.models, 128, options.prompts),
        "base_training_resolution": measure_base(options.models, 64, options.prompts),
    }
    options.out.write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
