"""One training iteration at real size, by phase: seconds, peak memory, and share of the device's own matmul rate.

    python -m benchmarks.gpu_real_size [--preset sdxl] [--device-batch 2] [--repeats 3]
    python -m benchmarks.gpu_real_size --small   # the models of the shapes world, on any device

The published configurations with random weights; nothing is downloaded, and the pixels mean nothing. SDXL: local batch
6 + 2 real images, T = 50, K = 5, r = 2, 512 px, BLIP large, Grounded-SAM, SD1.5's UNet as discriminator (Table 8),
bf16. A first iteration counts floating-point operations and warms up; the median of `--repeats` more is printed.
Operations are torch's count (matrix products, convolutions, attention), the rate is measured on one large product. On a
GPU one more iteration counts how often the host waits for it, by line.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime
import functools
import platform
import resource
import statistics
import tempfile
import time
import warnings
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import diffusers
import torch
import transformers
from torch import Tensor, nn
from torch._ops import OpOverload
from torch.profiler import record_function
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from comat.captioners import Captioner
from comat.captioners.load import load_captioner
from comat.diffusion.backbones import Backbone, load_base
from comat.diffusion.lora import add_lora
from comat.diffusion.rollout import Rollout
from comat.discriminators import Discriminator, load_discriminator
from comat.discriminators.denoiser import DenoiserDiscriminator
from comat.estimate import architectures
from comat.method.attribute_concentration import Entity
from comat.method.batch import Batch, RealImages
from comat.method.replay import MapTerm
from comat.method.step import ImageGradient, Step
from comat.params import OneCaptioner, OptimizationParams, Params, load
from comat.randomness import generator
from comat.running.device import DTYPES, choose_device, use_deterministic_algorithms
from comat.segmenters import Segmenter
from comat.segmenters.grounded_sam import GroundedSam
from comat.segmenters.grounding import Detector, Thresholds
from comat.segmenters.load import load_segmenter
from comat.shapes.recipe.__main__ import save
from comat.shapes.recipe.tokenizers import bert_tokenizer, clip_tokenizer

PROMPT = "a red cube on the left of a blue star and a green ring above a pink cross"
ENTITIES = [Entity("cube", (2, 3)), Entity("star", (10, 11)), Entity("ring", (13, 14)), Entity("cross", (17, 18))]
PHASES = ("rollout", "losses on the image", "replay", "discriminator", "optimizer")


class Operations(TorchDispatchMode):
    """Floating-point operations by torch's own formulas. Its FlopCounterMode cannot follow `torch.autograd.grad`."""

    total = 0

    def __torch_dispatch__(
        self, function: OpOverload, types: object, args: tuple = (), kwargs: dict[str, object] | None = None
    ) -> object:
        result = function(*args, **(kwargs or {}))
        if count := flop_registry.get(function._overloadpacket):
            self.total += count(*args, **(kwargs or {}), out_val=result)
        return result


class Meter:
    """Seconds, peak memory and operations of each phase of one iteration."""

    def __init__(self, device: torch.device, counter: Operations | None = None) -> None:
        self.device, self.counter = device, counter
        self.seconds: dict[str, float] = defaultdict(float)
        self.bytes: dict[str, int] = defaultdict(int)
        self.flops: dict[str, int] = defaultdict(int)

    @contextlib.contextmanager
    def phase(self, name: str) -> Iterator[None]:
        operations = self.counter.total if self.counter else 0
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.device)
            torch.cuda.synchronize(self.device)
        start = time.perf_counter()
        yield
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        self.seconds[name] += time.perf_counter() - start
        self.bytes[name] = max(self.bytes[name], peak_memory(self.device))
        self.flops[name] += (self.counter.total if self.counter else 0) - operations


class Ranges:
    """Stands in for a meter where none shall disturb: a phase is a range for a profiler."""

    def phase(self, name: str) -> contextlib.AbstractContextManager:
        return record_function(name)


class MeteredStep(Step):
    """Algorithm 1 as it is, with a meter at each phase."""

    meter: Meter | Ranges

    def generate(self, batch: Batch, steps: Sequence[int]) -> Rollout:
        with self.meter.phase("rollout"):
            return super().generate(batch, steps)

    def denoise_real(self, batch: Batch) -> Rollout:
        with self.meter.phase("rollout"):
            return super().denoise_real(batch)

    def image_gradient(
        self,
        z0: Tensor,
        prompts: Sequence[str],
        batch: Batch | None,
        samples: int,
        iteration: int,
        *,
        only: str | None = None,
    ) -> ImageGradient:
        with self.meter.phase("losses on the image"):
            return super().image_gradient(z0, prompts, batch, samples, iteration, only=only)

    def replay(self, generated: Rollout, image: ImageGradient, maps: MapTerm | None = None) -> list[Tensor]:
        with self.meter.phase("replay"):
            return super().replay(generated, image, maps)

    def discriminate(self, fake: Tensor, batch: Batch) -> list[Tensor]:
        with self.meter.phase("discriminator"):
            return super().discriminate(fake, batch)


def peak_memory(device: torch.device) -> int:
    """Bytes: of the device since the last reset; on the CPU of the process since it began."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def matmul_rate(device: torch.device, dtype: torch.dtype) -> float:
    """Operations a second of a square matrix product, the best of ten."""
    side = 8192 if device.type == "cuda" else 1024
    a, b = (torch.randn(side, side, device=device).to(dtype) for _ in range(2))
    seconds = []
    for _ in range(10):
        meter = Meter(device)
        with meter.phase("matmul"):
            a @ b
        seconds.append(meter.seconds["matmul"])
    return 2 * side**3 / min(seconds)


@contextlib.contextmanager
def random_weights(device: torch.device, dtype: torch.dtype) -> Iterator[None]:
    """Modules built in the block have random weights of `dtype` on `device`."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    torch.manual_seed(0)
    try:
        with device:
            yield
    finally:
        torch.set_default_dtype(before)


def real_backbone(name: str, device: torch.device, dtype: torch.dtype) -> Backbone:
    tokenizer = clip_tokenizer()
    tokenizer.model_max_length = 77
    with random_weights(device, dtype):
        return architectures.build_backbone(name, tokenizer)


@contextlib.contextmanager
def hub_layout(
    build: Callable[[], nn.Module], tokenizer: PreTrainedTokenizerBase, processor: str, device: torch.device
) -> Iterator[str]:
    """A folder with random weights, such as a user's models come in."""
    with tempfile.TemporaryDirectory() as root:
        with random_weights(device, torch.float16):
            model = build()
        assert isinstance(model, PreTrainedModel)
        save(model, Path(root) / "model", tokenizer, processor)
        yield str(Path(root) / "model")


def real_captioner(prefix: str, device: torch.device, dtype: torch.dtype) -> Captioner:
    build = functools.partial(architectures.build_captioner, "blip")
    with hub_layout(build, bert_tokenizer(), "BlipImageProcessor", device) as folder:
        own = OneCaptioner(captioner="blip", captioner_model=folder, captioner_revision=None, caption_prefix=prefix)
        return load_captioner(own, device, dtype)


class OneBoxEach:
    """A detector whose random weights find nothing finds each of the first two nouns once, so that masks are made."""

    def __init__(self, detector: Detector) -> None:
        self._detector, self.tokenizer = detector, detector.tokenizer

    def __call__(self, images: Tensor, captions: Sequence[str]) -> tuple[Tensor, Tensor]:
        scores, boxes = self._detector(images, captions)
        scores = torch.zeros_like(scores)
        scores[:, 0, 1] = scores[:, 1, 3] = 1.0  # [CLS] noun . noun .
        return scores, boxes


def real_segmenter(device: torch.device, dtype: torch.dtype) -> Segmenter:
    """Grounded-SAM of transformers: Swin-T and ViT-H."""
    from benchmarks.segmenters import save_transformers
    from comat.segmenters.grounded_sam_hf import GroundingDinoHF, SegmentAnythingHF

    with tempfile.TemporaryDirectory() as root:
        save_transformers(Path(root), "vit_h")
        detector = OneBoxEach(GroundingDinoHF(f"{root}/dino", None, device))
        masker = SegmentAnythingHF(f"{root}/sam", None, 0.5, device, dtype)
    return GroundedSam(detector, masker, Thresholds(box=0.5, text=0.25, nms=1.0))


class Models(NamedTuple):
    backbone: Backbone
    captioner: Captioner
    segmenter: Segmenter
    discriminator: Discriminator


def real_models(preset: str, params: Params, device: torch.device, dtype: torch.dtype) -> Models:
    """At their published sizes."""
    backbone, judge = (real_backbone(name, device, dtype) for name in (preset, "sd15"))
    judge.vae = backbone.vae  # of its own, and of its text encoders, training loads none or lets them go
    judge.text_encoders.clear()
    if params.train.gradient_checkpointing == "all":
        judge.denoiser.enable_gradient_checkpointing()
    critic = DenoiserDiscriminator(judge, params.lora_rank, generator(0, "discriminator"))
    captioner, segmenter = real_captioner(params.caption_prefix, device, dtype), real_segmenter(device, dtype)
    return Models(backbone, captioner, segmenter, critic)


def small_models(params: Params, device: torch.device, dtype: torch.dtype) -> Models:
    """The shapes world's, which the repository ships."""
    backbone = load_base(params.base_model, precision=params.precision, device=device)
    captioner = load_captioner(params.captioners[0], device, dtype)
    segmenter = load_segmenter(params, device, dtype)
    critic = load_discriminator(
        params,
        backbone,
        generator(0, "discriminator"),
        lora_rank=params.lora_rank,
        precision=params.precision,
        checkpointed=params.train.gradient_checkpointing == "all",
    )
    return Models(backbone, captioner, segmenter, critic)


def make_batch(params: Params, shape: tuple[int, int, int], device: torch.device) -> Batch:
    prompts, images = params.global_batch, params.image_batch
    latents = torch.randn(prompts + images, *shape, generator=generator(0, "latents")).to(device)
    real = RealImages(latents[prompts:], [PROMPT] * images)
    return Batch(0, [PROMPT] * prompts, [ENTITIES] * prompts, latents[:prompts], real)


def metered(params: Params, models: Models) -> MeteredStep:
    return MeteredStep(params, params.train, models.backbone, models.captioner, models.segmenter, models.discriminator)


class Player(NamedTuple):
    """The weights of the online model or of the discriminator that learn, and how."""

    weights: list[nn.Parameter]
    optimizer: torch.optim.Optimizer
    max_grad_norm: float


def players_of(models: Models, params: OptimizationParams) -> list[Player]:
    """Both; the online model gets its LoRA."""
    lora = add_lora(models.backbone, params.lora_rank, generator(0, "lora"))
    critic = models.discriminator.trainable_parameters()
    return [
        Player(lora, torch.optim.AdamW(lora, 1e-5), params.max_grad_norm),
        Player(critic, torch.optim.AdamW(critic, 1e-5), params.discriminator_max_grad_norm),
    ]


def iterate(step: MeteredStep, batch: Batch, players: Sequence[Player]) -> None:
    step(batch)
    with step.meter.phase("optimizer"):
        for player in players:
            nn.utils.clip_grad_norm_(player.weights, player.max_grad_norm)
        for player in players:
            player.optimizer.step()
            player.optimizer.zero_grad(set_to_none=True)


def synchronisations(step: MeteredStep, batch: Batch) -> Counter[str]:
    """How often the host waits for the GPU in one computation of the gradients, by the line that makes it wait."""
    step.meter = Ranges()
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        try:
            step(batch)
        finally:
            torch.cuda.set_sync_debug_mode("default")
    waits = [warning for warning in found if "synchronizing CUDA operation" in str(warning.message)]
    return Counter(f"{'/'.join(Path(warning.filename).parts[-2:])}:{warning.lineno}" for warning in waits)


def measure(params: Params, models: Models, repeats: int) -> tuple[Meter, list[Meter], Counter[str]]:
    """The meter that counted operations, those of the iterations after it, and where the host waited for a GPU."""
    backbone, players, step = models.backbone, players_of(models, params), metered(params, models)
    batch = make_batch(params, backbone.latent_shape(params.resolution), backbone.device)
    with Operations() as counter:
        first = step.meter = Meter(backbone.device, counter)
        iterate(step, batch, players)
    meters = []
    for _ in range(repeats):
        meters.append(Meter(backbone.device))
        step.meter = meters[-1]
        iterate(step, batch, players)
    waits = synchronisations(step, batch) if backbone.device.type == "cuda" else Counter[str]()
    return first, meters, waits


def report(counted: Meter, meters: list[Meter], waits: Counter[str], rate: float) -> None:
    print(f"{'phase':<22}{'seconds':>10}{'peak GB':>9}{'TFLOP':>10}{'of matmul':>11}")
    rows = []
    for name in PHASES:
        seconds = statistics.median(meter.seconds[name] for meter in meters)
        rows.append((name, seconds, max(meter.bytes[name] for meter in meters), counted.flops[name]))
    rows.append(("iteration", sum(r[1] for r in rows), max(r[2] for r in rows), sum(r[3] for r in rows)))
    for name, seconds, peak, operations in rows:
        share = operations / (seconds * rate)
        print(f"{name:<22}{seconds:>10.2f}{peak / 1e9:>9.2f}{operations / 1e12:>10.3f}{share:>11.1%}")
    if counted.device.type == "cuda":
        print(f"\nthe host waits for the GPU {waits.total()} times in the losses and gradients of an iteration:")
        print("\n".join(f"{count:>6}  {line}" for line, count in waits.most_common()))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", choices=("sd15", "sdxl"), default="sdxl")
    parser.add_argument("--small", action="store_true", help="the shapes world's models and parameters instead")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--precision", choices=sorted(DTYPES), help="default: the preset's")
    parser.add_argument("--device-batch", type=int, help="samples through the UNet at once; default: the preset's")
    parser.add_argument("--fastest", action="store_true", help="train.deterministic: false, whatever the preset says")
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    preset = "shapes" if options.small else options.preset
    params = load(f"presets/{preset}.yaml")
    # One of the eight processes of Table 8 has 4 + 2 or 6 + 2 samples.
    processes = 1 if options.small else 8
    changes: dict[str, object] = {"global_batch": params.global_batch // processes}
    changes |= {"image_batch": params.image_batch // processes}
    changes |= {"precision": options.precision or params.precision}
    if options.device_batch:
        changes["train"] = params.train.model_copy(update={"device_batch": options.device_batch})
    params = params.model_copy(update=changes)
    use_deterministic_algorithms(params.train.deterministic and not options.fastest)  # as the stage does
    device, dtype = choose_device(options.device), DTYPES[params.precision]
    rate = matmul_rate(device, dtype)
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else f"CPU, {torch.get_num_threads()} threads"
    print(f"{datetime.date.today()}, {name}, matmul {rate / 1e12:.3f} TFLOP/s in {params.precision}")
    versions = {"Python": platform.python_version(), "torch": torch.__version__}
    versions |= {"diffusers": diffusers.__version__, "transformers": transformers.__version__}
    print(", ".join(f"{library} {version}" for library, version in versions.items()))
    batch = f"batch {params.global_batch} + {params.image_batch}, {params.train.device_batch} at once"
    print(f"{preset}, {params.resolution} px, {batch}, T = {params.sampling_steps}, K = {params.grad_steps}, ", end="")
    print(f"r = {params.attribute_steps}\n")
    build = small_models if options.small else functools.partial(real_models, preset)
    report(*measure(params, build(params, device, dtype), options.repeats), rate)


if __name__ == "__main__":
    main()
