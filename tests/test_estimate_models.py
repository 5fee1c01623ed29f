"""`comat estimate` of the models: captioners, segmenters and those that are not at hand, against real small ones."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import GroundingDinoImageProcessor

from comat.errors import UserError
from comat.estimate.architectures import build_captioner
from comat.estimate.architectures import meta as meta_architecture
from comat.estimate.calls import measure
from comat.estimate.published import PUBLISHED, described
from comat.estimate.seeing import captioned, segmented
from comat.params import SHOWS, Params, load
from comat.segmenters.grounding_dino import build
from tests import tiny_segmenters, tiny_vlms
from tests.conftest import ROOT
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


def test_a_model_that_is_asked_in_two_ways_is_held_once(make_params, tmp_path: Path) -> None:
    tiny_vlms.save_internvl(tmp_path)
    both = [
        one_captioner("vlm", tmp_path, **asked).model_dump()
        for asked in ({}, {"captioner_question": SHOWS, "captioner_answer": "Yes"})
    ]
    alone, seen = (captioned(make_params(captioner=own, captioner_model=None)) for own in (both[:1], both))
    assert seen.weights == alone.weights > 0 and seen.cost.flops > 1.5 * alone.cost.flops


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


def test_a_checkpointed_captioner_keeps_less_and_computes_more(tiny: Path, make_params) -> None:
    """Its layers run again; a judge, which has no backward pass, costs what it did."""
    train = make_params().train.model_dump()
    plain, again = (make_params(train={**train, "gradient_checkpointing": how}) for how in ("none", "all"))
    assert captioned(again).cost.kept < 0.75 * captioned(plain).cost.kept
    assert captioned(again).cost.flops > captioned(plain).cost.flops
    assert captioned(again, learns=False).cost == captioned(plain, learns=False).cost


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


@pytest.mark.parametrize("preset", ["sd15", "sdxl", "sdxl-24gb", "sd35-medium", "pixart-sigma", "flux-dev"])
def test_published_models_need_no_network(preset: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Every preset's models that train are described; those that only judge are not measured."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    params = load(ROOT / f"presets/{preset}.yaml")
    with described(params) as (own, stated):
        assert params.base_model in stated and set(stated) <= set(PUBLISHED)
        names = [own.base_model, own.captioner_model, own.segmenter_model, own.discriminator_model]
        assert all(Path(name).is_dir() for name in names)


def test_a_published_captioner_is_described_at_its_size(tmp_path: Path, make_params) -> None:
    """BLIP large: 469 M with the word embeddings, which are the output layer as well."""
    PUBLISHED["Salesforce/blip-image-captioning-large"](tmp_path)
    seen = captioned(make_params(captioner_model=str(tmp_path)))
    assert seen.weights / 4e6 == pytest.approx(469 - 30524 * 768 / 1e6, rel=0.003)
