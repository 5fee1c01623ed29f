"""Sampling with LoRA merged into the weights against the stock diffusers pipeline without LoRA, at the same settings.

    python -m benchmarks.rollout [--model shapes] [--batch 4] [--steps 20] [--repeats 5] [--compile]

`shapes` is the shapes world's base at 128 px, `sd15` an eighth of SD1.5 with random weights at 512 px. Both encode
the prompts, sample with DDPM and guidance to the final latents, and take turns; merging and restoring are in our time.
The LoRA is fresh, so that both must draw the same latents: that is checked first, and with `--compile`, where our side
goes through `torch.compile`, that is when the compiler runs. Seconds are CPU time, all threads.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import torch
from diffusers import StableDiffusionPipeline, StableDiffusionXLPipeline
from torch import Tensor
from transformers import CLIPTextModel, CLIPTokenizer

from benchmarks.iteration import build_backbone
from comat.diffusion.backbones import Backbone, load_base
from comat.diffusion.lora import add_lora, merged
from comat.diffusion.rollout import rollout
from comat.diffusion.schedulers import make_sampler
from comat.randomness import generator, noise

PROMPT, GUIDANCE, RANK = "a red cube and a blue star", 5.0, 32


def shapes() -> tuple[Backbone, StableDiffusionXLPipeline, int]:
    """The model, a stock pipeline with weights of its own, and the resolution in px."""
    folder = "data/shapes/models/base"
    stock = StableDiffusionXLPipeline.from_pretrained(
        folder, dtype=torch.float32, use_safetensors=True, add_watermarker=False
    )
    return load_base(folder), stock, 128


def sd15() -> tuple[Backbone, StableDiffusionPipeline, int]:
    stock = build_backbone(8)
    (encoder,), (tokenizer,) = stock.text_encoders, stock.tokenizers
    assert isinstance(encoder, CLIPTextModel) and isinstance(tokenizer, CLIPTokenizer)
    pipeline = StableDiffusionPipeline(
        vae=stock.vae,
        text_encoder=encoder,
        tokenizer=tokenizer,
        unet=stock.denoiser,
        scheduler=make_sampler("ddpm", stock.scheduler_config, 1).scheduler,
        safety_checker=None,  # type: ignore[arg-type]
        feature_extractor=None,  # type: ignore[arg-type]
        requires_safety_checker=False,
    )
    return build_backbone(8), pipeline, 512


def sides(options: argparse.Namespace) -> tuple[Callable[[], Tensor], Callable[[], Tensor]]:
    """Calls that draw final latents: ours, and the stock pipeline's."""
    backbone, pipeline, px = shapes() if options.model == "shapes" else sd15()
    add_lora(backbone, RANK, generator(0, "lora"))
    if options.compile:
        backbone.compile()
    pipeline.scheduler = make_sampler("ddpm", backbone.scheduler_config, options.steps).scheduler
    pipeline.set_progress_bar_config(disable=True)
    prompts = [PROMPT] * options.batch

    def start() -> tuple[Tensor, list[torch.Generator]]:
        own = [generator(0, "noise", row) for row in range(options.batch)]
        return noise(backbone.latent_shape(px), own), own

    def ours() -> Tensor:
        z, own = start()
        sampler = make_sampler("ddpm", backbone.scheduler_config, options.steps)
        with merged(backbone.denoiser):
            embeddings = backbone.encode_prompts(prompts)
            return rollout(backbone, sampler, z, embeddings, GUIDANCE, own, chunk=options.batch).z0

    def stock() -> Tensor:
        z, own = start()
        settings = {"height": px, "width": px, "num_inference_steps": options.steps, "guidance_scale": GUIDANCE}
        return pipeline(prompts, **settings, latents=z, generator=own, output_type="latent").images

    return ours, stock


def seconds(call: Callable[[], Tensor]) -> float:
    start = time.process_time()
    call()
    return time.process_time() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", choices=("shapes", "sd15"), default="shapes")
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--compile", action="store_true")
    options = parser.parse_args()
    ours, stock = sides(options)
    torch.testing.assert_close(ours(), stock(), rtol=1e-3, atol=1e-3)
    rounds = [(seconds(ours), seconds(stock)) for _ in range(options.repeats)]
    ratios = [own / other for own, other in rounds]
    print(f"ours, LoRA merged {statistics.median(own for own, _ in rounds):>8.2f} s")
    print(f"stock, no LoRA    {statistics.median(other for _, other in rounds):>8.2f} s")
    print(f"ratio             {statistics.median(ratios):>8.2f}   ({min(ratios):.2f} to {max(ratios):.2f})")


if __name__ == "__main__":
    main()
