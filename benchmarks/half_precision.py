"""What half precision does to a LoRA's effect and to the gradients, against float32, with the shapes world's models.

    python -m benchmarks.half_precision [--only effect branch gradients scale cost]

`effect`: a LoRA whose part of every layer is 5e-4 of its weights, and which leads somewhere; the share of its float32
effect on predictions that is there, along that effect. `branch`: the gradient of predictions in the weights of such a
LoRA, from the same inputs: its cosine with float32's, and the ratio of norms. `gradients`: the same of each term, of an
iteration that samples in half precision as well. `scale`: the loss scales of fp16 at which an iteration's gradients are
finite, with a fresh LoRA and with one at a twentieth of the weights. `cost`: operations, by precision, and bytes kept
of one replayed sample of SDXL at 512 px in bf16, counted on the meta device.

Three forms take turns: LoRA `merged` into half-precision weights for sampling and peft's own forward, whose branch is
float32, in replay, as it was; peft's forward `beside` for both; and `once`, as it is: computed in half precision beside
the weights, base and LoRA rounded together.
"""

from __future__ import annotations

import argparse
import contextlib
import statistics
from collections import defaultdict
from collections.abc import Iterator, Sequence
from unittest import mock

import torch
from peft.tuners.lora import Linear
from torch import Tensor, nn

import comat.diffusion.lora as lora
from benchmarks.gpu_real_size import Operations, small_models
from comat.diffusion.backbones import Backbone, load_base
from comat.estimate import architectures
from comat.estimate.cost import cost
from comat.method.attribute_concentration import Entity
from comat.method.batch import NO_IMAGES, Batch, RealImages
from comat.method.step import Step
from comat.params import Params, load
from comat.randomness import generator
from comat.running.device import DTYPES
from comat.tokenizers import load_tokenizers

SIZE, RANK, SAMPLES, BATCHES = 5e-4, 32, 16, 5
COLOURS = ("red", "blue", "green", "yellow", "pink", "black", "white", "orange")
SHAPES = ("cube", "ball", "star", "ring")
FORMS = ("merged", "beside", "once")
OFF: dict[str, object] = {"concept_activation": False, "attribute_steps": 0, "lambda_adv": 0.0, "image_batch": 0}
TERMS: dict[str, dict[str, object]] = {
    "captioner": OFF | {"concept_activation": True},
    "captioner, real images": OFF | {"concept_activation": True, "image_batch": 2, "global_batch": 0},
    "attribute": OFF | {"attribute_steps": 2},
    "adversarial": OFF | {"lambda_adv": 1.0},
}


@contextlib.contextmanager
def form(name: str) -> Iterator[None]:
    """The block runs with LoRA in one of the FORMS."""
    with contextlib.ExitStack() as stack:
        if name != "once":
            stack.enter_context(mock.patch.object(lora.LoraLinear, "forward", Linear.forward))
        if name == "merged":
            stack.enter_context(mock.patch.object(lora, "mergeable", lora.adapted))
        yield


def shrink(unet: nn.Module, ups: Sequence[Tensor], size: float) -> None:
    """Set every layer's B to the direction `ups`, its LoRA to `size` of the layer's weights."""
    with torch.no_grad():
        for (layer, base), up in zip(lora.adapted(unet), ups, strict=True):
            (a,), (b,) = layer.lora_A.parameters(), layer.lora_B.parameters()
            b.copy_(up * size * base.float().norm() / (up @ a).norm())


def predict(backbone: Backbone, seed: int) -> Tensor:
    """Of prompts, timesteps and latents that all differ: (B, C, h, w)."""
    z = torch.randn(SAMPLES, *backbone.latent_shape(64), generator=generator(seed, "z"))
    t = torch.randint(1000, (SAMPLES,), generator=generator(seed, "t"))
    names = [f"a {colour} {shape}" for colour in COLOURS for shape in SHAPES]
    picked = torch.randperm(len(names), generator=generator(seed, "prompts"))[:SAMPLES]
    return backbone.denoise(z, t, backbone.encode_prompts([names[i] for i in picked]))


def directions(folder: str) -> list[Tensor]:
    """B of each layer towards one image for all samples: what the first step of a training would be."""
    backbone = load_base(folder)
    lora.add_lora(backbone, RANK, generator(0, "lora"))
    (predict(backbone, 0) * torch.randn(backbone.latent_shape(64), generator=generator(0, "aim"))).sum().backward()
    found = [weight.grad for layer, _ in lora.adapted(backbone.denoiser) for weight in layer.lora_B.parameters()]
    return [gradient for gradient in found if gradient is not None]


@torch.no_grad()
def effects(folder: str, precision: str, ups: Sequence[Tensor], seeds: int) -> list[Tensor]:
    backbone = load_base(folder, precision=precision)
    before = [predict(backbone, seed) for seed in range(seeds)]
    lora.add_lora(backbone, RANK, generator(0, "lora"))
    shrink(backbone.denoiser, ups, SIZE)
    with lora.merged(backbone.denoiser):
        return [predict(backbone, seed) - old for seed, old in enumerate(before)]


def effect(params: Params) -> None:
    ups = directions(params.base_model)
    exact = effects(params.base_model, "fp32", ups, BATCHES)
    print(f"share of float32's effect, LoRA at {SIZE:g} of the weights, {BATCHES} batches of {SAMPLES}: median (range)")
    for precision in ("bf16", "fp16"):
        for name in FORMS:
            with form(name):
                found = effects(params.base_model, precision, ups, BATCHES)
            shares = [float((d * e).sum() / e.square().sum()) for d, e in zip(found, exact, strict=True)]
            print(f"  {precision} {name:<8}{spread(shares, 2)}")


def spread(values: Sequence[float], digits: int) -> str:
    low, middle, high = (f"{value:.{digits}f}" for value in (min(values), statistics.median(values), max(values)))
    return f"{middle} ({low} to {high})"


def in_branch(folder: str, precision: str, ups: Sequence[Tensor], seeds: int) -> list[Tensor]:
    """Of each batch of predictions, along one direction for all precisions, the gradient in the LoRA weights."""
    backbone = load_base(folder, precision=precision)
    weights, factor = lora.add_lora(backbone, RANK, generator(0, "lora")), 1024.0 if precision == "fp16" else 1.0
    shrink(backbone.denoiser, ups, SIZE)
    found = []
    for seed in range(seeds):
        said = predict(backbone, seed).float()
        aim = torch.randn(said.shape, generator=generator(seed, "aim"))
        rows = torch.autograd.grad(factor * (said * aim).sum(), weights)
        found.append(torch.cat([row.flatten().double() / factor for row in rows]))
    return found


def branch(params: Params) -> None:
    print(f"gradient of predictions in a LoRA at {SIZE:g} of the weights, {BATCHES} batches of {SAMPLES}: cosine with")
    print("float32's, ratio of norms: median (range)")
    ups = directions(params.base_model)
    exact = in_branch(params.base_model, "fp32", ups, BATCHES)
    for precision in ("bf16", "fp16"):
        for name in FORMS[1:]:  # replay never merges
            with form(name):
                compared(f"{precision} {name:<8}", in_branch(params.base_model, precision, ups, BATCHES), exact)


def compared(name: str, found: Sequence[Tensor], exact: Sequence[Tensor]) -> None:
    pairs = list(zip(found, exact, strict=True))
    cosines = [float(f @ e / f.norm() / e.norm()) for f, e in pairs]
    ratios = [float(f.norm() / e.norm()) for f, e in pairs]
    print(f"  {name}{spread(cosines, 4)}  {spread(ratios, 3)}", flush=True)


def setting(params: Params, precision: str, changes: dict[str, object], size: float) -> tuple[Step, list[nn.Parameter]]:
    """A step of four prompts or two real images, with a LoRA at `size` of the weights."""
    fixed: dict[str, object] = {"sampling_steps": 10, "grad_steps": 2, "attribute_steps": 2, "global_batch": 4}
    p = params.model_copy(update={**fixed, "precision": precision, **changes})
    models = small_models(p, torch.device("cpu"), DTYPES[precision])
    weights = lora.add_lora(models.backbone, RANK, generator(0, "lora"))
    layers = [layer for layer, _ in lora.adapted(models.backbone.denoiser)]
    shapes = [layer.lora_B["default"].get_parameter("weight").shape for layer in layers]
    rng = generator(1, "B")
    shrink(models.backbone.denoiser, [torch.randn(shape, generator=rng) for shape in shapes], size)
    return Step(p, p.train, models.backbone, models.captioner, models.segmenter, models.discriminator), weights


def batch_of(step: Step, iteration: int) -> Batch:
    """Colours and latents differ from one iteration to the next, as the noise does."""
    one, two = COLOURS[iteration % 4], COLOURS[4 + iteration % 4]
    prompts = [f"a {one} cube and a {two} star", f"two {one} rings", f"a {two} ball", f"a {one} star on a {two} ring"]
    entities = [[Entity("cube", (2, 3)), Entity("star", (6, 7))], *[[]] * 3]
    shape = step.backbone.latent_shape(step.p.resolution)
    latents = torch.randn(6, *shape, generator=generator(2, "latents", iteration))
    real = RealImages(latents[4:], [f"a {one} ring", f"a {two} cube"]) if step.p.image_batch else NO_IMAGES
    count = step.p.global_batch
    return Batch(iteration, prompts[:count], entities[:count], latents[:count], real)


def gradient(step: Step, weights: Sequence[nn.Parameter], iteration: int) -> Tensor:
    for weight in weights:
        weight.grad = None
    step(batch_of(step, iteration))
    rows = [torch.zeros_like(w) if w.grad is None else w.grad / step.loss_scale for w in weights]
    return torch.cat([row.flatten().double() for row in rows])


def gradients(params: Params) -> None:
    print(
        f"gradient in the LoRA weights against float32's, LoRA at {SIZE:g} of the weights, {BATCHES} batches: cosine,"
    )
    print("ratio of norms: median (range)")
    for term, changes in TERMS.items():
        step, weights = setting(params, "fp32", changes, SIZE)
        exact = [gradient(step, weights, iteration) for iteration in range(BATCHES)]
        for precision in ("bf16", "fp16"):
            for name in FORMS:
                with form(name):
                    step, weights = setting(params, precision, changes, SIZE)
                    step.loss_scale = 1024.0 if precision == "fp16" else 1.0
                    found = [gradient(step, weights, iteration) for iteration in range(BATCHES)]
                compared(f"{term:<24}{precision} {name:<8}", found, exact)


def scale(params: Params) -> None:
    print("fp16, all terms, by the exponent of the loss scale: norm of the gradient in the LoRA weights")
    for name, size in (("fresh", 0.0), ("shaken", 0.05)):
        step, weights = setting(params, "fp16", {"image_batch": 2}, size)
        for exponent in (0, 5, 10, 12, 13, 14, 15, 16, 18):
            step.loss_scale = 2.0**exponent
            print(f"  {name:<8}2^{exponent:<4}{gradient(step, weights, 0).norm():>9.5g}", flush=True)


class ByPrecision(Operations):
    """Operations of the block, by the type of their first tensor."""

    def __init__(self) -> None:
        super().__init__()
        self.found: dict[torch.dtype, float] = defaultdict(float)

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        before = self.total
        result = super().__torch_dispatch__(function, types, args, kwargs)
        if self.total > before:
            self.found[next(a.dtype for a in args if isinstance(a, Tensor))] += self.total - before
        return result


def replay_cost(_: Params) -> None:
    print("one replayed sample of SDXL at 512 px, guidance and backward pass, LoRA of rank 128, bf16")
    for name in ("beside", "once"):
        before = torch.get_default_dtype()
        torch.set_default_dtype(torch.bfloat16)
        try:
            with torch.device("meta"):
                model = architectures.build_backbone("sdxl", load_tokenizers("data/shapes/models/base")[0])
        finally:
            torch.set_default_dtype(before)
        unet = model.denoiser
        lora.add_lora(model, 128, generator(0, "lora"))
        z = torch.empty(2, 4, 64, 64, device="meta", dtype=torch.bfloat16)
        text = torch.empty(2, 77, 2048, device="meta", dtype=torch.bfloat16)
        added = {
            "text_embeds": torch.empty(2, 1280, device="meta", dtype=torch.bfloat16),
            "time_ids": torch.empty(2, 6, device="meta", dtype=torch.bfloat16),
        }
        t = torch.empty((), device="meta")
        with form(name), ByPrecision() as counter:
            found = cost(lambda: unet(z, t, text, added_cond_kwargs=added).sample, modules=[unet])  # noqa: B023
        parts = ", ".join(f"{str(kind).removeprefix('torch.')} {n / 1e12:.2f}" for kind, n in counter.found.items())
        print(f"  {name:<8}{sum(counter.found.values()) / 1e12:.2f} TFLOP ({parts}), {found.kept / 1e9:.2f} GB kept")


MEASURES = {"effect": effect, "branch": branch, "gradients": gradients, "scale": scale, "cost": replay_cost}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=tuple(MEASURES), default=tuple(MEASURES))
    params = load("presets/shapes.yaml")
    for part in parser.parse_args().only:
        MEASURES[part](params)


if __name__ == "__main__":
    main()
