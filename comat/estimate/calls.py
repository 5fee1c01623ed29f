"""The calls that a run is made of, each measured once for one sample on the meta device."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from transformers import Dinov2Model, ViTModel

from comat.diffusion.attention import recorded_maps
from comat.diffusion.backbones import Backbone
from comat.diffusion.lora import add_lora, mergeable
from comat.discriminators.denoiser import DenoiserDiscriminator
from comat.discriminators.dino import DinoDiscriminator
from comat.errors import UserError
from comat.estimate.cost import NOTHING, Cost, checkpoint_as_on_device, cost
from comat.estimate.judges import Judge, judging
from comat.estimate.meta import meta_backbone, meta_features
from comat.estimate.seeing import Seen, captioned, guarded, segmented, size
from comat.models.preprocess import Preprocess
from comat.params import Params

AUTOENCODER = "autoencoder"
ENCODERS = "text encoders"
"""Weights that only the warm-up and the stage that makes them hold where prompt embeddings are stored."""


@dataclass
class Calls:
    """Costs of one sample. A part that is switched off costs nothing; `uncounted` names parts that could not be."""

    denoise: Cost = NOTHING  # both halves of the guidance
    denoise_native: Cost = NOTHING
    replay: Cost = NOTHING
    replay_maps: Cost = NOTHING
    warmup: Cost = NOTHING
    encode: Cost = NOTHING
    read: Cost = NOTHING  # a prompt, by the text encoders
    noised: Cost = NOTHING  # the denoiser on a noised real image, with gradients, and with its maps where asked for
    decode: Cost = NOTHING
    decode_native: Cost = NOTHING
    image: Cost = NOTHING  # decoding and the captioner, with gradients
    segment: Cost = NOTHING
    adversary: Cost = NOTHING  # the discriminator with gradients into the latents
    discriminate: Cost = NOTHING  # with gradients into its own weights, for one latent
    guard: Cost = NOTHING  # the guard's judge and features
    weights: dict[str, int] = field(default_factory=dict)  # part → bytes of frozen weights
    trained: dict[str, int] = field(default_factory=dict)  # part → numbers that receive gradients
    merged: int = 0  # bytes of the weights that LoRA is merged into
    denoiser_weights: int = 0  # weights of the denoiser
    latent: int = 0  # bytes of a latent in float32
    embedding: int = 0  # bytes of a prompt's embeddings
    text_weights: int = 0  # numbers in the text encoders
    warmup_lora: int = 0  # numbers that the warm-up trains, where it trains LoRA
    uncounted: list[str] = field(default_factory=list)
    judges: dict[str, Judge] = field(default_factory=dict)  # of the stage `evaluate`, by benchmark


def measure(p: Params) -> Calls:
    """Build every model of the parameters on the meta device and measure its calls."""
    calls = Calls()
    backbone = meta_backbone(p.base_model, p.base_revision, p.vae, p.vae_revision, p.precision)
    z = _meta(*backbone.latent_shape(p.resolution))
    calls.latent = 4 * z.numel()
    _sampling(calls, p, backbone, z)
    _training(calls, p, backbone, z)
    if p.concept_activation:
        latent = z.clone().requires_grad_()
        if p.train.gradient_checkpointing != "none":
            backbone.checkpoint_decoder(checkpoint_as_on_device)
        calls.image = cost(lambda: backbone.decode(latent), modules=[backbone.vae], inputs=[latent])
        calls.image += _take(calls, "captioner", captioned(p))
    elif p.grounds_generated:
        calls.image = calls.decode  # for the segmenter alone, without gradients
    if p.attribute_concentration:
        calls.segment = _take(calls, "segmenter", segmented(p))
    if p.lambda_adv:
        _discriminator(calls, p, backbone, z)
    if p.train.guard.every:
        calls.guard = _take(calls, "guard", guarded(p.train.guard, p.resolution))
    calls.judges = judging(p)
    calls.uncounted += [part for judge in calls.judges.values() for part in judge.uncounted]
    return calls


def _sampling(calls: Calls, p: Params, backbone: Backbone, z: Tensor) -> None:
    native = _meta(*backbone.latent_shape(p.native_resolution))
    calls.denoiser_weights = sum(w.numel() for w in backbone.denoiser.parameters())
    calls.weights["denoiser"] = size(backbone.denoiser)
    calls.text_weights = sum(w.numel() for m in backbone.text_encoders for w in m.parameters())
    calls.weights[AUTOENCODER], calls.weights[ENCODERS] = size(backbone.vae), size(*backbone.text_encoders)
    said = backbone.null
    calls.embedding = sum(part.nbytes for part in (said.tokens, said.pooled, said.mask) if part is not None)
    calls.read = cost(lambda: backbone.encode_prompts([""]).tokens)
    calls.denoise, calls.denoise_native = _guided(p, backbone, z), _guided(p, backbone, native)
    calls.decode, calls.decode_native = cost(lambda: backbone.decode(z)), cost(lambda: backbone.decode(native))
    calls.encode = cost(lambda: backbone.encode_images(_meta(3, p.resolution, p.resolution)))


def _training(calls: Calls, p: Params, backbone: Backbone, z: Tensor) -> None:
    """The warm-up's step, then the replay's; LoRA stays on the denoiser."""
    backbone.denoiser.requires_grad_(True)
    t = torch.empty((), device="meta")
    calls.warmup = cost(lambda: backbone.denoise(z, t, backbone.null), modules=[backbone.denoiser])
    backbone.denoiser.requires_grad_(False)
    calls.trained["LoRA"] = sum(w.numel() for w in add_lora(backbone, p.lora_rank, torch.Generator()))
    calls.warmup_lora = calls.trained["LoRA"] // p.lora_rank * p.warmup.lora_rank  # as thick as its rank
    if p.train.gradient_checkpointing == "all":
        backbone.denoiser.enable_gradient_checkpointing(checkpoint_as_on_device)
    calls.merged = sum(weight.nbytes for _, weight in mergeable(backbone.denoiser))
    calls.replay = _guided(p, backbone, z, train=True)
    layers = backbone.chosen_layers(p.attribute_layers)
    calls.replay_maps = _guided(p, backbone, z, train=True, layers=layers)
    if p.noises_real:
        alone = p.model_copy(update={"guidance_scale": 1.0})
        calls.noised = _guided(alone, backbone, z, train=True, layers=layers if p.grounds_real else ())


def _discriminator(calls: Calls, p: Params, backbone: Backbone, z: Tensor) -> None:
    name, revision, generator = p.discriminator_model, p.discriminator_revision, torch.Generator()
    critic: DinoDiscriminator | DenoiserDiscriminator
    run: nn.Module  # what judging runs besides
    if p.discriminator == "dino":
        features = meta_features("discriminator_model", name, revision, p.precision)
        if not isinstance(features, ViTModel | Dinov2Model):
            found = features.config.model_type
            raise UserError(f"discriminator_model {name!r}: expected a DINO (vit) or a DINOv2 (dinov2), found {found}")
        preprocess = Preprocess(name, revision, features.config.image_size)
        critic, run = DinoDiscriminator(features, preprocess, backbone, generator), backbone.vae
        calls.weights["discriminator"] = size(features)
    else:
        source = meta_backbone(name, revision, None, None, p.precision)
        if p.train.gradient_checkpointing == "all":
            source.denoiser.enable_gradient_checkpointing(checkpoint_as_on_device)
        critic, run = DenoiserDiscriminator(source, p.lora_rank, generator), source.denoiser
        calls.weights["discriminator"] = size(source.denoiser)
    calls.trained["discriminator"] = sum(w.numel() for w in critic.trainable_parameters())
    modules: list[nn.Module] = [critic, run]
    calls.discriminate = cost(lambda: critic(z), modules=modules)
    latent = z.clone().requires_grad_()
    frozen = [module.requires_grad_(False) for module in modules]
    calls.adversary = cost(lambda: critic(latent), modules=frozen, inputs=[latent])


def _take(calls: Calls, part: str, seen: Seen) -> Cost:
    """Note the weights of a part and what of it could not be counted; its cost."""
    calls.weights[part] = seen.weights
    calls.uncounted += seen.uncounted
    return seen.cost


def _guided(p: Params, backbone: Backbone, z: Tensor, train: bool = False, layers: Sequence[str] = ()) -> Cost:
    def call() -> Tensor:
        with recorded_maps(backbone.denoiser, layers) as maps:
            result = backbone.guided(z, torch.empty((), device="meta"), backbone.null, p.guidance_scale).sum()
        found = maps.collect(backbone.layout(z.shape[-2:]), len(z))
        return sum((layer.sum() for layer in found.values()), result)

    return cost(call, modules=[backbone.denoiser] if train else [])


def _meta(*shape: int) -> Tensor:
    return torch.empty(1, *shape, device="meta")
