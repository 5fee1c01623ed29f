"""`comat estimate`: operations, kept bytes and sizes of calls and stages against numbers derived by hand."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import nn

from comat.diffusion.backbones import load_base
from comat.estimate.calls import ENCODERS, Calls, measure
from comat.estimate.cost import Cost, checkpoint_as_on_device, cost, matmul_rate
from comat.estimate.memory import host, memory, needs, phases, warmup
from comat.estimate.plan import Counts, apart, disk, guard, iteration, scratch, work
from comat.params import GuardParams, load


def meta(*shape: int, grad: bool = False) -> torch.Tensor:
    return torch.empty(*shape, device="meta", requires_grad=grad)


def test_a_layer_costs_what_its_matrices_say() -> None:
    """y = x W with x (2, 3), W (3, 5): 2 * 2 * 3 * 5 = 60, and as much again for each gradient. Only x is kept."""
    layer = nn.Linear(3, 5, bias=False, device="meta")
    assert cost(lambda: layer(meta(2, 3))) == Cost(60, 0)
    assert cost(lambda: layer(meta(2, 3)), modules=[layer]) == Cost(120, 2 * 3 * 4)
    layer.requires_grad_(False)
    x = meta(2, 3, grad=True)
    assert cost(lambda: layer(x), modules=[layer], inputs=[x]) == Cost(120, 0)


def test_attention_keeps_no_probabilities() -> None:
    """q, k, v (1, 2, 64, 8) and the output, 4 KiB each, and the logarithms of the sums; 64 x 64 probabilities never."""
    q, k, v = (meta(1, 2, 64, 8, grad=True) for _ in range(3))
    found = cost(lambda: F.scaled_dot_product_attention(q, k, v), inputs=[q, k, v])
    assert 4 * 4096 <= found.kept < 4 * 4096 + 2 * 64 * 64 * 4
    # Forward: two products of 2 * 64 * 64 * 8 operations for each head; backward: five.
    assert found.flops == 7 * 2 * (2 * 64 * 64 * 8)


def test_an_iteration_adds_its_calls_up(make_params) -> None:
    """Algorithm 1 by hand: 3 prompts, 2 real images, T = 6, K = 3, r = 2; real images start at 400 of 1000."""
    one = {name: Cost(flops) for name, flops in (("denoise", 1), ("replay", 10), ("replay_maps", 100), ("image", 1000))}
    calls = Calls(**one, segment=Cost(1e4), adversary=Cost(1e5), discriminate=Cost(1e6))
    p = make_params(lambda_adv=0.5)
    flops = {name: part.flops for name, part in iteration(p, calls).items()}
    real = 6 * 400 / 1000
    assert flops["rollout"] == pytest.approx(3 * 6 + 2 * real)
    assert flops["images: decoder, captioner, segmenter"] == 5 * 1000 + 3 * 1e4
    assert flops["replay"] == pytest.approx(10 * (3 * 1 + 2 * real) + 100 * 3 * 2)
    assert flops["discriminator"] == 3 * 1e5 + 6 * 1e6


def test_every_look_at_the_terms_replays_each(make_params) -> None:
    """3 prompts, 2 real images, T = 6, K = 3, r = 2: iterations 0 and 2 of 4 replay the captioner's and the
    discriminator's side of all three, the maps of two steps, and of real images what is left of their steps.
    """
    one = {name: Cost(flops) for name, flops in (("replay", 1), ("replay_maps", 10), ("image", 100))}
    calls = Calls(**one, adversary=Cost(1e4), noised=Cost(1e5))
    section = make_params().train.model_copy(update={"gradients_every": 2})
    p = make_params(lambda_adv=0.5, train_steps=4).model_copy(update={"train": section})
    real = 6 * 400 / 1000
    parts = (3 * (100 + 3), 2 * (100 + real), 3 * (1e4 + 3), 10 * 3 * 2)
    assert apart(p, calls) == pytest.approx(2 * sum(parts))
    assert apart(p.model_copy(update={"denoising_weight": 1.0}), calls) == pytest.approx(2 * (sum(parts) + 2 * 1e5))
    off = p.model_copy(update={"train": section.model_copy(update={"gradients_every": 0})})
    with_looks, without = (work(one, calls, Counts(4, 2, 5))["train"] for one in (p, off))
    assert apart(off, calls) == 0 and with_looks == without + apart(p, calls)


def test_the_guard_looks_at_the_original_model_s_images_by_whole_batches(make_params) -> None:
    """Of 5 prompts, and up to 256 images of the original model, or as many as there are."""
    calls = Calls(denoise=Cost(peak=10), decode=Cost(peak=7), guard=Cost(peak=3))
    base = make_params()

    def held(size: int, originals: int, prompts: int = 5) -> float:
        """Bytes of the guard's phase that holds the most; as many samples as it takes are named."""
        guard = base.train.guard.model_copy(update={"every": 1, "prompts": prompts})
        train = base.train.model_copy(update={"device_batch": size, "guard": guard})
        reference = base.reference_latents.model_copy(update={"count": originals})
        p = base.model_copy(update={"train": train, "reference_latents": reference})
        ((part, most),) = ((part, size) for part, size in memory(p, calls).items() if part.startswith("activations"))
        drawn, seen = (part.endswith(name) for name in ("images of the guard", ": guard"))
        assert drawn != seen and f"of {most / (10 if drawn else 7):g} samples" in part
        return most

    assert held(4, 0) == 4 * 10 and held(6, 0) == 5 * 10 and held(32, 0) == 32 * 7
    assert held(32, 6) == 5 * 10 and held(32, 8) == 8 * 7 and held(1000, 0) == 256 * 7
    assert held(1000, 0, prompts=300) == 300 * 10


def test_an_iteration_of_real_images_generates_nothing(make_params) -> None:
    """TokenCompose: each of 2 real images is decoded, segmented, and goes once through the denoiser; no prompt does."""
    calls = Calls(
        denoise=Cost(1), replay=Cost(1), replay_maps=Cost(1), segment=Cost(100, 5, 7), decode=Cost(1000, 5, 7)
    )
    calls.noised, calls.discriminate = Cost(10, 20, 30), Cost(1)
    real = {"denoising_weight": 1.0, "attribute_images": "real"}
    p = make_params(concept_activation=False, lambda_adv=0.0, **real)
    flops = {name: part.flops for name, part in iteration(p, calls).items()}
    assert flops.pop("noised real images: denoiser, segmenter") == 2 * (10 + 100 + 1000)
    assert not any(flops.values())
    assert phases(p, calls, 2)["noised real images"] == 2 * 30
    both = iteration(make_params(**real), calls)
    assert both["rollout"].flops > 0 and both["images: decoder, captioner, segmenter"].flops == 0
    measured = measure(p)
    assert measured.denoise.flops < measured.noised.flops < measured.replay_maps.flops
    assert measure(make_params()).noised == Cost(0)


def test_weights_are_those_of_the_real_models(make_params, tiny: Path) -> None:
    p = make_params()
    calls = measure(p)
    real = load_base(str(tiny / "sdxl"))
    assert calls.weights["denoiser"] == sum(w.nbytes for w in real.denoiser.parameters())
    captioner = load_file(tiny / "blip/model.safetensors")
    assert calls.weights["captioner"] == pytest.approx(sum(w.nbytes for w in captioner.values()), rel=0.05)
    assert calls.latent == 4 * 4 * 8 * 8
    assert calls.decode_native.flops == pytest.approx(4 * calls.decode.flops)
    assert calls.replay.flops > 2 * calls.denoise.flops * 0.9 and calls.replay_maps.kept > calls.replay.kept > 0


def test_the_dino_discriminator_trains_its_head(make_params, tiny: Path) -> None:
    """Of width 16: a norm of 2 * 16, layers of 16 * 16 + 16 and of 16 + 1. Its gradients pass through the decoder."""
    calls = measure(make_params(discriminator="dino", discriminator_model=str(tiny / "dino"), lambda_adv=0.5))
    assert calls.trained["discriminator"] == 32 + 272 + 17
    assert calls.adversary.flops > calls.discriminate.flops > calls.decode.flops and calls.uncounted == []


def test_the_guard_adds_its_looks(make_params, tiny: Path) -> None:
    """5 steps with a look every 2: before steps 0, 2 and 4 and at the end, at 3 images of 6 steps each."""
    p = make_params(train_steps=5)
    own = {"every": 2, "prompts": 3, "metric": "clip_score", "clip_model": str(tiny / "clip"), "clip_revision": None}
    own |= {"feature_model": str(tiny / "dino"), "feature_revision": None}
    section = GuardParams.model_validate(p.train.guard.model_dump() | own)
    calls = Calls(denoise=Cost(1), decode=Cost(10), guard=Cost(100))
    guarded = p.model_copy(update={"train": p.train.model_copy(update={"guard": section})})
    assert guard(guarded, calls) == 4 * 3 * (6 + 10 + 100)
    assert guard(p, calls) == 0
    measured = measure(guarded)
    clip, dino = (load_file(tiny / name / "model.safetensors") for name in ("clip", "dino"))
    held = sum(w.nbytes for file in (clip, dino) for w in file.values())
    assert measured.weights["guard"] == pytest.approx(held, rel=0.05) and measured.guard.flops > 0


def test_a_part_that_is_switched_off_costs_nothing(make_params) -> None:
    p = make_params(concept_activation=False, alpha=0.0, beta=0.0, lambda_adv=0.0, train_steps=0)
    calls = measure(p)
    assert set(calls.weights) == {"denoiser", "autoencoder", "text encoders"} and set(calls.trained) == {"LoRA"}
    assert iteration(p, calls)["replay"].flops == 0
    assert sum(memory(p, calls).values()) < sum(memory(make_params(), measure(make_params())).values())


def test_disk_is_what_the_stages_leave(project: Path) -> None:
    p = load(project / "params.yaml")
    calls, counts = measure(p), Counts(train=4, test=2, images=5)
    left = disk(p, calls, counts)
    folder = project / "data"
    written = {
        "train": ["train/lora/pytorch_lora_weights", "train/discriminator/discriminator"],
        "warmup_images": ["warmup_images/00000"],
        "image_latents": ["image_latents/00000"],
        "warmup": ["warmup/unet/diffusion_pytorch_model"],
        "reference_latents": ["reference_latents/00000", "reference_latents/00001"],
    }
    for stage, files in written.items():
        tensors = [w for file in files for w in load_file(folder / f"{file}.safetensors").values()]
        assert left[stage] == sum(w.nbytes for w in tensors), stage
    unknown = work(p, calls, Counts(None, None, None))
    assert unknown["samples"] is None and unknown["train"] > 0


def test_the_rate_is_a_rate_and_leaves_the_threads() -> None:
    before = torch.get_num_threads()
    assert 1e8 < matmul_rate(torch.device("cpu"), torch.float32, seconds=0.05) < 1e14
    assert torch.get_num_threads() == before


@pytest.mark.parametrize("of", ["decoder", "all"])
def test_checkpointing_keeps_less_and_computes_more(make_params, of: str) -> None:
    """The blocks' second run costs at most what their first did, so less than forward and backward pass together."""
    p = make_params(lambda_adv=0.5)
    plain = measure(p)
    again = measure(p.model_copy(update={"train": p.train.model_copy(update={"gradient_checkpointing": of})}))
    unets = ("replay", "replay_maps", "discriminate", "adversary")
    for name in ("image", *unets) if of == "all" else ("image",):
        before, after = getattr(plain, name), getattr(again, name)
        assert after.kept < before.kept and before.flops < after.flops < 2 * before.flops
    for name in ("denoise", "warmup", "decode", *(unets if of == "decoder" else ())):
        assert getattr(again, name) == getattr(plain, name)


@pytest.mark.parametrize(("again", "most"), [(False, 20), (True, 8)])
def test_the_peak_is_what_is_held_at_once(again: bool, most: int) -> None:
    """Five blocks of four layers, each of whose outputs is one unit: 19 kept ones and the last output.

    With blocks that run again: four blocks' inputs (the first is the caller's), three layers' outputs, and a gradient
    with the one that it is made from, as a block does not keep its last output.
    """
    blocks = [nn.Sequential(*(nn.Linear(64, 64, bias=False, device="meta") for _ in range(4))) for _ in range(5)]
    x, unit = meta(1000, 64), 1000 * 64 * 4

    def call() -> torch.Tensor:
        y = x
        for block in blocks:
            y = checkpoint_as_on_device(block, y) if again else block(y)
        return y

    found = cost(call, modules=blocks)
    assert found.peak / unit == pytest.approx(most, rel=0.1)
    assert cost(call).peak / unit == pytest.approx(3, abs=0.5)  # input, output and the block's before it
    assert all(weight.grad is None for block in blocks for weight in block.parameters())


def test_one_call_after_the_other_holds_what_the_first_kept() -> None:
    assert (Cost(1, 10, 15) + Cost(1, 3, 20)).peak == 30
    assert (Cost(1, 10, 40) + Cost(1, 3, 20)).peak == 43


def test_the_warm_up_is_counted_whole(make_params) -> None:
    """Of 1,000 weights and 200 of text encoders, batches of 2 that hold 7 bytes each in bf16.

    All weights: 16 bytes each; LoRA of 30 numbers: 4 bytes each, and 16 of each of its own. On the host what is said of
    each of 4 prompts, 50 bytes in bf16.
    """
    p = make_params(precision="bf16")
    values = p.warmup.model_dump() | {"batch_size": 2}
    calls, known = Calls(warmup=Cost(1, 5, 7), denoiser_weights=1000, text_weights=200, embedding=50), Counts(4, 2, 5)
    full = p.model_copy(update={"warmup": type(p.warmup).model_validate(values | {"lora_rank": 0})})
    assert sum(warmup(full, calls).values()) == 16 * 1000 + 4 * 200 + 2 * 2 * 7
    assert host(full, calls, known)["warmup"] == 4 * 2 * 50
    calls.warmup_lora = 30
    lora = p.model_copy(update={"warmup": type(p.warmup).model_validate(values | {"lora_rank": 3})})
    assert sum(warmup(lora, calls).values()) == 4 * 1000 + 4 * 200 + 16 * 30 + 2 * 2 * 7
    none = p.model_copy(update={"warmup": type(p.warmup).model_validate(values | {"steps": 0})})
    assert warmup(none, calls) == {} and host(none, calls, known)["warmup"] == 0
    assert disk(none, calls, known)["warmup"] == 0 and disk(full, calls, known)["warmup"] == 4000


@pytest.mark.parametrize(
    ("changes", "every", "expected"), [({}, 20, 200), ({"denoising_weight": 1.0}, 20, 240), ({}, 0, 0)]
)
def test_looks_at_the_terms_wait_on_the_host(make_params, changes: dict, every: int, expected: int) -> None:
    """Of ten LoRA weights, 4 bytes each: four terms, or five with the denoising one, and the gradient of all."""
    p = make_params(**changes)
    p = p.model_copy(update={"train": p.train.model_copy(update={"gradients_every": every})})
    assert host(p, Calls(trained={"LoRA": 10}), Counts(4, 2, 5))["train"] == expected


def test_a_working_folder_holds_the_outputs_and_two_states(make_params) -> None:
    p = make_params()
    calls = Calls(denoiser_weights=1000, trained={"LoRA": 10})
    known = Counts(4, 2, 5)
    assert scratch(p, calls, known)["warmup"] == 4 * 1000 + 2 * 12 * 1000
    assert scratch(p, calls, known)["train"] == 4 * 10 + 2 * 12 * 10
    assert scratch(p, calls, Counts(None, None, None))["samples"] is None


def test_every_stage_has_its_need(make_params) -> None:
    p = make_params()
    calls = measure(p)
    found = {need.stage: need for need in needs(p, calls)}
    assert list(found) == [
        *("warmup_images", "warmup", "reference_latents", "image_latents", "base_samples", "train", "samples"),
        "evaluate",
    ]
    assert found["train"].total == sum(memory(p, calls).values())
    assert "autoencoder" in found["base_samples"].parts and "autoencoder" not in found["reference_latents"].parts
    store = "set prompt_embeddings.store to true"
    assert store in found["reference_latents"].changes
    assert found["warmup"].parts[ENCODERS] and store not in found["warmup"].changes  # it encodes its own
    assert all(need.total > 0 and need.changes and need.least < need.total for need in found.values())
