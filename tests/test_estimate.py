"""`comat estimate`: operations, kept bytes and sizes against numbers derived by hand and against real models."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import nn
from transformers import GroundingDinoImageProcessor
from typer.testing import CliRunner

from comat.cli import app
from comat.diffusion.backbone import Backbone
from comat.errors import UserError
from comat.estimate.architectures import build_captioner
from comat.estimate.architectures import meta as meta_architecture
from comat.estimate.calls import Calls, measure
from comat.estimate.cost import Cost, cost, matmul_rate
from comat.estimate.plan import Counts, disk, guard, iteration, memory, work
from comat.estimate.seeing import captioned, segmented
from comat.params import GuardParams, Params, load
from comat.segmenters.grounding_dino import build
from tests import tiny_segmenters, tiny_vlms
from tests.tiny_models import llama_tokenizer, one_captioner, save_llava_processor
from tests.tiny_segmenters import grounded_sam_params, save_sam3


@pytest.fixture(scope="module")
def grounded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Grounded-SAM in both forms: dino, sam, dino_hf, sam_hf."""
    root = tmp_path_factory.mktemp("grounded")
    tiny_segmenters.save_grounding_dino(root / "dino")
    with (root / "dino/config.py").open("a") as file:
        file.write("dec_layers = 2\n")  # transformers' detector has at least two
    tiny_segmenters.save_sam(root / "sam")
    tiny_segmenters.save_grounding_dino_hf(root / "dino_hf")
    # Of 64 px the coarsest features are one pixel, which its normalisation refuses for a single image.
    GroundingDinoImageProcessor(size={"shortest_edge": 128, "longest_edge": 192}).save_pretrained(root / "dino_hf")
    tiny_segmenters.save_sam_hf(root / "sam_hf")
    return root


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


def test_weights_are_those_of_the_real_models(make_params, tiny: Path) -> None:
    p = make_params()
    calls = measure(p)
    real = Backbone.load(str(tiny / "sdxl"))
    assert calls.weights["UNet"] == sum(w.nbytes for w in real.unet.parameters())
    captioner = load_file(tiny / "blip/model.safetensors")
    assert calls.weights["captioner"] == pytest.approx(sum(w.nbytes for w in captioner.values()), rel=0.05)
    assert calls.latent == 4 * 4 * 8 * 8
    assert calls.decode_native.flops == pytest.approx(4 * calls.decode.flops)
    assert calls.replay.flops > 2 * calls.denoise.flops * 0.9 and calls.replay_maps.kept > calls.replay.kept > 0


def test_llava_costs_what_its_layers_say(make_params, tmp_path: Path) -> None:
    """Vicuna's 32 layers hold 4 * 4096^2 + 3 * 4096 * 11008 weights each, and read 24^2 patches and the dialogue.

    Its tokens are characters here: 16 times "word" with 15 spaces, question and roles, start and end, but the image's
    name is one token, which the patches take the place of. Every weight costs two operations a token, and as much for
    the gradient into its input; attention has two products forward and five backward. CLIP's 303 M weights see 577
    patches.
    """
    model = meta_architecture(build_captioner, "llava")
    model.config.architectures = ["LlavaForConditionalGeneration"]
    model.config.save_pretrained(tmp_path)
    save_llava_processor(tmp_path, llama_tokenizer(), side=336, patch=14)
    seen = captioned(make_params(captioner="vlm", captioner_model=str(tmp_path), precision="bf16"))
    text = "USER: \nDescribe the image in one sentence. ASSISTANT: " + " ".join(["word"] * 16)
    tokens, weights = 24**2 + len(text) + 3, 32 * (4 * 4096**2 + 3 * 4096 * 11008)
    flops = 4 * weights * tokens + 32 * 7 * 2 * tokens**2 * 4096 + 4 * 303e6 * 577
    assert seen.cost.flops == pytest.approx(flops, rel=0.02)
    assert seen.weights == 2 * sum(w.numel() for w in model.parameters())


@pytest.mark.parametrize(("family", "counted"), [("internvl", True), ("gemma3", True), ("idefics3", False)])
def test_a_vlm_is_counted_or_said_not_to_be(make_params, tmp_path: Path, family: str, counted: bool) -> None:
    """What a model computes that looks at values cannot be counted without them; its weights can."""
    getattr(tiny_vlms, f"save_{family}")(tmp_path)
    seen = captioned(make_params(captioner="vlm", captioner_model=str(tmp_path)))
    held = sum(w.nbytes for w in load_file(tmp_path / "model.safetensors").values())
    assert seen.weights == pytest.approx(held, rel=0.2)
    assert (seen.cost.flops > held) == counted == (seen.uncounted == ())


def test_captioners_of_a_mixture_add_up(make_params, tiny: Path) -> None:
    both = [one_captioner(kind, tiny / name) for kind, name in (("blip", "blip"), ("clip_similarity", "clip"))]
    seen = captioned(make_params(captioner=[one.model_dump() for one in both], captioner_model=None))
    alone = captioned(make_params(captioner_model=str(tiny / "blip")))
    clip = sum(w.nbytes for w in load_file(tiny / "clip/model.safetensors").values())
    assert seen.weights - alone.weights == pytest.approx(clip, rel=0.05)
    assert seen.cost.flops > alone.cost.flops and seen.cost.kept > alone.cost.kept


def test_sam3_is_counted_but_for_its_nouns(make_params, tmp_path: Path) -> None:
    save_sam3(tmp_path)
    own = {"segmenter": "sam3", "segmenter_model": str(tmp_path), "sam3": {"threshold": 0.3, "nms_threshold": 0.8}}
    seen = segmented(make_params(**own))
    held = sum(w.nbytes for w in load_file(tmp_path / "model.safetensors").values())
    assert seen.weights == pytest.approx(held, rel=0.05) and seen.cost.flops > 0
    assert seen.uncounted == ("how SAM 3 finds the nouns",)


@pytest.mark.parametrize("kind", ["blip", "git", "llava"])
def test_every_captioner_is_counted(make_params, tiny: Path, kind: str) -> None:
    """Of four bytes each, every weight takes two operations on the way there and two back, for more than one token."""
    seen = captioned(make_params(captioner="vlm" if kind == "llava" else kind, captioner_model=str(tiny / kind)))
    held = sum(w.nbytes for w in load_file(tiny / kind / "model.safetensors").values())
    assert seen.weights == pytest.approx(held, rel=0.05)
    assert seen.cost.flops > held and seen.cost.kept > 0 and seen.uncounted == ()


@pytest.mark.parametrize("kind", ["grounded_sam", "grounded_sam_hf"])
def test_grounded_sam_is_counted_in_both_forms(make_params, grounded: Path, kind: str) -> None:
    """As many bytes as the real models hold; of the original detector, counted as transformers' one, nearly as many."""
    seen = segmented(make_params(**grounded_sam_params(grounded, kind)))
    if kind == "grounded_sam_hf":
        files = [load_file(grounded / name / "model.safetensors") for name in ("dino_hf", "sam_hf")]
    else:
        detector = build(str(grounded / "dino/config.py"), str(grounded / "dino/bert"), None)
        files = [dict(detector.named_parameters()), torch.load(grounded / "sam/sam.pth", weights_only=True)]
    assert seen.weights == pytest.approx(sum(w.nbytes for file in files for w in file.values()), rel=0.02)
    assert seen.cost.flops > 0 and seen.uncounted == ()


def test_a_file_that_is_not_at_hand_is_named(make_params, grounded: Path, tmp_path: Path) -> None:
    values = grounded_sam_params(grounded, "grounded_sam")
    values["grounded_sam"]["sam_model"] = str(tmp_path)
    p = make_params(**values)
    assert segmented(p).uncounted == ("Segment Anything (sam.pth is not downloaded yet)",)
    assert 0 < segmented(p).weights < segmented(make_params(**grounded_sam_params(grounded, "grounded_sam"))).weights


def test_a_detector_of_another_backbone_is_named(make_params, grounded: Path, tmp_path: Path) -> None:
    values = grounded_sam_params(grounded, "grounded_sam")
    config = tmp_path / "config.py"
    config.write_text((grounded / "dino/config.py").read_text() + 'backbone = "swin_L_384_22k"\n')
    values["grounded_sam"]["files"]["detector_config"] = str(config)
    assert segmented(make_params(**values)).uncounted == ("Grounding DINO on swin_L_384_22k",)


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
    assert set(calls.weights) == {"UNet", "autoencoder and text encoders"} and set(calls.trained) == {"LoRA"}
    assert iteration(p, calls)["replay"].flops == 0
    assert sum(memory(p, calls).values()) < sum(memory(make_params(), measure(make_params())).values())


def test_disk_is_what_the_stages_leave(project: Path) -> None:
    p = load(project / "params.yaml")
    counts = Counts(train=4, test=2, images=5)
    left = disk(p, measure(p), counts)
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
    unknown = work(p, measure(p), Counts(None, None, None))
    assert unknown["samples"] is None and unknown["train"] > 0


def test_the_rate_is_a_rate_and_leaves_the_threads() -> None:
    before = torch.get_num_threads()
    assert 1e8 < matmul_rate(torch.device("cpu"), torch.float32, seconds=0.05) < 1e14
    assert torch.get_num_threads() == before


def test_the_command_says_that_it_estimates(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(project)
    result = CliRunner().invoke(app, ["estimate"])
    assert result.exit_code == 0, result.output
    for words in ("An estimate", "memory of train", "one iteration of train", "reference_latents", "Not in it"):
        assert words in result.stdout


def test_a_model_without_a_configuration_is_named(make_params, tmp_path: Path) -> None:
    p: Params = make_params(captioner_model=str(tmp_path))
    with pytest.raises(UserError, match=r"captioner_model .*: cannot read its configuration"):
        measure(p)


@pytest.mark.parametrize(
    ("changes", "found"),
    [
        ({"captioner": "git", "captioner_model": "blip"}, "captioner_model .*: expected git, found blip"),
        ({"segmenter_model": "clip"}, "segmenter_model .*: expected clipseg, found clip"),
        (
            {"discriminator": "dino", "discriminator_model": "clip"},
            r"discriminator_model .*: .* \(dinov2\), found clip",
        ),
    ],
)
def test_a_model_of_another_class_is_named(make_params, tiny: Path, changes: dict[str, str], found: str) -> None:
    """As the run itself would, which loads a class by the parameter, not by what a configuration says of itself."""
    own = {key: str(tiny / value) if key.endswith("_model") else value for key, value in changes.items()}
    with pytest.raises(UserError, match=found):
        measure(make_params(lambda_adv=0.5, **own))


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
