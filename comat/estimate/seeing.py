"""The models that look at one image, on the meta device: captioners, segmenters, the guard's judge and features."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from groundingdino.util.slconfig import SLConfig
from torch import Tensor, nn
from transformers import (
    BaseImageProcessor,
    BertConfig,
    BlipForConditionalGeneration,
    CLIPModel,
    CLIPSegForImageSegmentation,
    GitForCausalLM,
    GroundingDinoConfig,
    GroundingDinoForObjectDetection,
    PreTrainedModel,
    Sam3Model,
    SamModel,
    SwinConfig,
)
from transformers.utils import cached_file

from comat.captioners.checkpointing import checkpoint_layers
from comat.captioners.dialogue import Dialogue
from comat.captioners.vlm import vlm_class
from comat.estimate.cost import NOTHING, Cost, checkpoint_as_on_device, cost
from comat.estimate.meta import emptied, meta_features, meta_model
from comat.models.loading import loaded
from comat.params import GroundedSamFiles, GroundedSamParams, GuardParams, OneCaptioner, Params
from comat.running.device import DTYPES
from comat.segmenters.clipseg import decode

TOKENS, NOUNS = 16, 2
"""Of a prompt, taken as typical: tokens that a captioner reads, and nouns that a segmenter looks for."""
CAPTIONERS: dict[str, type[PreTrainedModel]] = {
    "blip": BlipForConditionalGeneration,
    "git": GitForCausalLM,
}
SWINS = {
    "swin_T_224_1k": (96, [2, 2, 6, 2], [3, 6, 12, 24], 7),
    "swin_B_384_22k": (128, [2, 2, 18, 2], [4, 8, 16, 32], 12),
}
"""Backbones of groundingdino-py's two configurations: width, depths, heads and window (Liu et al. 2021)."""


@dataclass(frozen=True)
class Seen:
    """What was found: the cost of one image, bytes of the weights, and the names of what could not be counted."""

    cost: Cost = NOTHING
    weights: int = 0
    uncounted: tuple[str, ...] = ()

    def __add__(self, other: Seen) -> Seen:
        return Seen(self.cost + other.cost, self.weights + other.weights, self.uncounted + other.uncounted)


@dataclass(frozen=True)
class Backward:
    """Whether gradients go into the pixels, and layers run again for them."""

    learns: bool
    checkpointed: bool = False


JUDGED = Backward(learns=False)


def captioned(p: Params, learns: bool = True) -> Seen:
    """One image and its prompt through the captioners; with gradients into the pixels where something learns of it."""
    seen, held = Seen(), set()
    how = Backward(learns, learns and p.train.gradient_checkpointing == "all")
    for own in p.captioners:
        if own.captioner == "vlm":
            asked, named = dialogued(own, p.precision, p.resolution, how), (own.captioner_model, own.captioner_revision)
            seen += Seen(asked.cost) if named in held else asked  # loaded once, however many ask it
            held.add(named)
        elif own.captioner == "clip_similarity":
            source = ("captioner_model", own.captioner_model, own.captioner_revision, p.precision)
            seen += _similar(meta_model(CLIPModel, *source), how)
        else:
            seen += _captioner(own, p.precision, how)
    return seen


def _captioner(own: OneCaptioner, precision: str, how: Backward) -> Seen:
    """BLIP or GIT."""
    kind = CAPTIONERS[own.captioner]
    model = meta_model(kind, "captioner_model", own.captioner_model, own.captioner_revision, precision)
    pixels, ids = blank_images(model, side_of(model)).requires_grad_(), blank_ids(1, TOKENS)
    call = _into(pixels, model, lambda: model(pixel_values=pixels, input_ids=ids).logits, how)
    return Seen(call, size(model))


def _similar(model: CLIPModel, how: Backward) -> Seen:
    pixels, text = blank_images(model, side_of(model)).requires_grad_(), blank_ids(1, TOKENS)
    looked = _into(pixels, model, lambda: model.get_image_features(pixel_values=pixels).pooler_output, how)
    return Seen(looked + cost(lambda: model.get_text_features(input_ids=text).pooler_output), size(model))


def dialogued(own: OneCaptioner, precision: str, resolution: int, how: Backward) -> Seen:
    """One image of the run's size, as its own processor cuts it, and a dialogue about a typical prompt.

    Where a model looks at values, which the meta device has none of, its weights are counted alone.
    """
    source = (own.captioner_model, own.captioner_revision)
    dialogue = Dialogue(*source, own.caption_prefix, own.captioner_question, own.captioner_answer)
    text = dialogue.answered(" ".join(["word"] * TOKENS)).text
    given = dialogue.inputs(torch.full((1, 3, resolution, resolution), 0.4), [text])
    model = meta_model(vlm_class(*source), "captioner_model", *source, precision)
    # Sizes of grids are read as numbers, by the models that have them.
    inputs = {name: value if name.endswith("grid_thw") else value.to("meta") for name, value in given.items()}
    pixels = inputs.pop("pixel_values").to(model.dtype).requires_grad_()
    scored = {"use_cache": False, "logits_to_keep": TOKENS + 1}
    try:
        call = _into(pixels, model, lambda: model(pixel_values=pixels, **inputs, **scored).logits, how)
    except RuntimeError:
        return Seen(weights=size(model), uncounted=(f"what {own.captioner_model} computes",))
    return Seen(call, size(model))


def _into(pixels: Tensor, model: nn.Module, call: Callable[[], Tensor], how: Backward) -> Cost:
    """The cost of a call, with gradients into the pixels where something learns of it."""
    if how.checkpointed:
        checkpoint_layers(model, checkpoint_as_on_device)
    return cost(call, modules=[model], inputs=[pixels]) if how.learns else cost(call)


def segmented(p: Params) -> Seen:
    """One image and its nouns through the segmenter."""
    if p.segmenter == "clipseg":
        source = (p.segmenter_model, p.segmenter_revision, p.precision)
        return _clipseg(meta_model(CLIPSegForImageSegmentation, "segmenter_model", *source))
    if p.segmenter == "sam3":
        sam = meta_model(Sam3Model, "segmenter_model", p.segmenter_model, p.segmenter_revision, "fp32")
        return _sam3(sam, DTYPES[p.precision])
    own = p.grounded_sam
    assert own is not None  # `SegmenterParams` asks for it, and for its files where they are needed
    if p.segmenter == "grounded_sam_hf":
        return _transformers(p, own)
    assert own.files is not None
    return _packages(own, own.files, p.precision)


def guarded(own: GuardParams, resolution: int) -> Seen:
    """One image of the guard through its judge and its features; the shapes world's oracle is no model."""
    assert own.feature_model is not None  # `GuardParams` asks for it, and for clip_model where it is needed
    features = meta_features("train.guard.feature_model", own.feature_model, own.feature_revision, "fp32")
    seen = Seen(cost(lambda: features(pixel_values=blank_images(features, resolution)).pooler_output), size(features))
    if own.metric == "clip_score":
        assert own.clip_model is not None
        clip = meta_model(CLIPModel, "train.guard.clip_model", own.clip_model, own.clip_revision, "fp32")
        pixels, text = blank_images(clip, side_of(clip)), blank_ids(1, TOKENS)
        seen += Seen(cost(lambda: clip.get_image_features(pixel_values=pixels).pooler_output), size(clip))
        seen += Seen(cost(lambda: clip.get_text_features(input_ids=text).pooler_output))
    return seen


def _clipseg(model: CLIPSegForImageSegmentation) -> Seen:
    """The image is encoded once, and every noun asks it; each noun is read once in a run, which is not counted."""
    pixels = blank_images(model, side_of(model))
    width: int = model.clip.text_projection.out_features
    texts = torch.empty(NOUNS, width, device="meta", dtype=model.dtype)
    rows = torch.zeros(NOUNS, device="meta", dtype=torch.long)

    def logits() -> Tensor:
        seen = model.clip.vision_model(pixel_values=pixels, output_hidden_states=True).hidden_states
        return decode(model, seen, texts, rows, pixels.shape[-2:])

    return Seen(cost(logits), size(model))


def _sam3(model: Sam3Model, dtype: torch.dtype) -> Seen:
    """The image's features, most of the work; what finds the nouns in them looks at values."""
    encoder: nn.Module = model.vision_encoder
    encoder.to(dtype)
    side = side_of(model)
    pixels = torch.empty(1, 3, side, side, device="meta", dtype=dtype)
    looked = on_meta(lambda: model.get_vision_features(pixels).fpn_hidden_states[0])
    return Seen(looked, size(model), ("how SAM 3 finds the nouns",))


def _transformers(p: Params, own: GroundedSamParams) -> Seen:
    source = (p.segmenter_model, p.segmenter_revision)
    settings, _ = loaded(
        source[0],
        "image processor",
        lambda: BaseImageProcessor.get_image_processor_dict(source[0], revision=source[1]),
    )
    detector = meta_model(GroundingDinoForObjectDetection, "segmenter_model", *source, "fp32")
    sam = meta_model(SamModel, "grounded_sam.sam_model", own.sam_model, own.sam_revision, "fp32")
    encoder: nn.Module = sam.vision_encoder
    encoder.to(DTYPES[p.precision])
    pixels = blank_images(sam, side_of(sam))

    def masks() -> Tensor:
        seen = sam.get_image_embeddings(pixels.to(DTYPES[p.precision])).float()
        boxes = torch.empty(1, NOUNS, 4, device="meta")
        return sam(image_embeddings=seen, input_boxes=boxes, multimask_output=False).pred_masks

    found = detected(detector, settings["size"]["shortest_edge"])
    return found + Seen(on_meta(masks), size(sam))


def _packages(own: GroundedSamParams, files: GroundedSamFiles, dtype: str) -> Seen:
    """The original packages. Detectors are counted as transformers', the same model; SAM's size stands in its file."""
    from comat.segmenters.grounding_dino import SHORTEST, configuration

    seen = _original_sam(own.sam_model, own.sam_revision, files.sam, dtype)
    settings = SLConfig.fromfile(str(configuration(files.detector_config)))
    if settings.backbone not in SWINS:
        return seen + Seen(uncounted=(f"Grounding DINO on {settings.backbone}",))
    text = loaded(
        files.text_encoder,
        "the text encoder's configuration",
        lambda: BertConfig.from_pretrained(files.text_encoder, revision=files.text_encoder_revision or "main"),
    )
    return seen + detected(emptied(lambda: _detector(settings, text), "fp32"), SHORTEST)


def _detector(settings: SLConfig, text: BertConfig) -> GroundingDinoForObjectDetection:
    width, depths, heads, window = SWINS[settings.backbone]
    swin = SwinConfig(embed_dim=width, depths=depths, num_heads=heads, window_size=window)
    swin.out_indices = [2, 3, 4]
    config = GroundingDinoConfig(
        backbone_config=swin,
        text_config=text,
        num_queries=settings.num_queries,
        encoder_layers=settings.enc_layers,
        decoder_layers=settings.dec_layers,
        encoder_ffn_dim=settings.dim_feedforward,
        decoder_ffn_dim=settings.dim_feedforward,
        d_model=settings.hidden_dim,
    )
    return GroundingDinoForObjectDetection(config)


def _original_sam(model: str, revision: str | None, file: str, dtype: str) -> Seen:
    """Segment Anything of its package, if its file is at hand: it is not downloaded for an estimate."""
    from comat.segmenters.sam import build

    try:
        path = cached_file(model, file, revision=revision, local_files_only=True)
    except OSError:
        path = None
    if path is None:
        return Seen(uncounted=(f"Segment Anything ({file} is not downloaded yet)",))
    weights = torch.load(path, map_location="meta", weights_only=True, mmap=True)
    sam = emptied(lambda: build(weights), "fp32")
    sam.image_encoder.to(DTYPES[dtype])
    side = sam.image_encoder.img_size
    pixels = torch.empty(1, 3, side, side, device="meta", dtype=DTYPES[dtype])

    def masks() -> Tensor:
        seen, boxes = sam.image_encoder(pixels).float(), torch.empty(NOUNS, 4, device="meta")
        sparse, dense = sam.prompt_encoder(points=None, boxes=boxes, masks=None)
        return sam.mask_decoder(
            image_embeddings=seen,
            image_pe=sam.prompt_encoder.get_dense_pe(),
            sparse_prompt_embeddings=sparse,
            dense_prompt_embeddings=dense,
            multimask_output=False,
        )[0]

    return Seen(on_meta(masks), size(sam))


def detected(detector: GroundingDinoForObjectDetection, side: int) -> Seen:
    pixels, ids = blank_images(detector, side), blank_ids(1, TOKENS)
    mask = torch.ones(1, side, side, device="meta", dtype=torch.long)
    read = {"attention_mask": torch.ones_like(ids), "pixel_mask": mask}
    return Seen(on_meta(lambda: detector(pixel_values=pixels, input_ids=ids, **read).logits), size(detector))


def on_meta(call: Callable[[], Tensor]) -> Cost:
    """For models that make tensors of their own while they run."""
    with torch.device("meta"):
        return cost(call)


def side_of(model: PreTrainedModel) -> int:
    """Pixels of a side of the images that a model looks at, which are square; some configurations name both sides."""
    size = model.config.vision_config.image_size
    return size if isinstance(size, int) else size[0]


def blank_images(model: PreTrainedModel, side: int, count: int = 1) -> Tensor:
    return torch.empty(count, 3, side, side, device="meta", dtype=model.dtype)


def blank_ids(count: int, length: int) -> Tensor:
    return torch.empty(count, length, device="meta", dtype=torch.long)


def size(*modules: nn.Module) -> int:
    """Bytes of their weights."""
    return sum(w.nbytes for module in modules for w in module.parameters())
