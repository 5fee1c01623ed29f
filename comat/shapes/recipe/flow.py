"""The base of the second world: Stable Diffusion 3 in miniature, a transformer trained by flow matching.

It learns as the first base does (`comat/shapes/recipe/base.py`), at 64 px alone: to paint clean, uniform scenes
(`flow_painter`), goes on where scenes are hard (`flow_refined`), and then from long-tailed data with noisy captions,
back part of the way, which leaves it with the paper's two diseases (`flow_base`).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL, FlowMatchEulerDiscreteScheduler, SD3Transformer2DModel, StableDiffusion3Pipeline
from torch import Tensor, nn
from transformers import CLIPTextModelWithProjection, CLIPTokenizer, T5Config, T5EncoderModel, T5Tokenizer

from comat.diffusion.attention import AttentionMaps, joint_layout, recorded_maps
from comat.shapes.recipe.base import (
    HARDER_WEIGHTS,
    TRAINING_PX,
    encode,
    interpolate,
    long_tailed_examples,
    object_areas,
)
from comat.shapes.recipe.data import Example, clean_examples
from comat.shapes.recipe.fit import fit
from comat.shapes.recipe.text import (
    POOLED_WIDTH,
    TOKEN_WIDTH,
    clip_config,
    lesson,
    noun_words,
    random_specs,
    reading_heads,
    reading_loss,
)
from comat.shapes.recipe.tokenizers import MAX_TOKENS, clip_tokenizer, t5_tokenizer

SHIFT = 1.5
"""Of the noise levels, towards the noisy ones; Stable Diffusion 3 takes 3 at 256 times as many pixels."""
WIDTH, HEADS, LAYERS, PATCH = 144, 6, 6, 2
FLOW_WEIGHTS = (2, 3, 3, 2, 3)
"""Of `CATEGORIES`, for clean scenes."""


class FlowTextEncoders(nn.Module):
    """Stable Diffusion 3's three text encoders in miniature: two CLIPs side by side, T5 behind them."""

    def __init__(self, clip: CLIPTokenizer, t5: T5Tokenizer) -> None:
        super().__init__()
        self.first = CLIPTextModelWithProjection(clip_config(clip))
        self.second = CLIPTextModelWithProjection(clip_config(clip))
        self.third = T5EncoderModel(
            T5Config(
                vocab_size=len(t5),
                d_model=TOKEN_WIDTH,
                d_kv=TOKEN_WIDTH // 4,
                d_ff=2 * TOKEN_WIDTH,
                num_layers=2,
                num_heads=4,
                relative_attention_num_buckets=16,
                relative_attention_max_distance=MAX_TOKENS,
                dropout_rate=0.0,
            )
        )

    def forward(self, ids: Tensor, pieces: Tensor) -> tuple[Tensor, Tensor]:
        """CLIP's and T5's ids (B, 24) each → token embeddings (B, 48, 128), CLIP's first, and pooled ones (B, 96)."""
        clips = [encoder(ids, output_hidden_states=True) for encoder in (self.first, self.second)]
        side_by_side = torch.cat([clip.hidden_states[-2] for clip in clips], -1)
        tokens = torch.cat([side_by_side, self.third(pieces)[0]], 1)
        return tokens, torch.cat([clip.text_embeds for clip in clips], -1)


def train_text(steps: int, clip: CLIPTokenizer, t5: T5Tokenizer, work: Path) -> FlowTextEncoders:
    """Teach the encoders what 20,000 random captions say: CLIPs and T5 each of every noun, the pooled embedding of all
    objects."""
    torch.manual_seed(0)
    specs = random_specs()
    of_clip, of_t5 = lesson(clip, specs), lesson(t5, specs)
    encoders = FlowTextEncoders(clip, t5)
    clip_heads, t5_heads = reading_heads(), reading_heads()
    counting = nn.Linear(2 * POOLED_WIDTH, of_clip.pooled.shape[1])

    def loss(generator: torch.Generator) -> Tensor:
        rows, device = torch.randint(len(specs), (128,), generator=generator), encoders.first.device
        tokens, pooled = encoders(of_clip.ids[rows].to(device), of_t5.ids[rows].to(device))
        counted = F.mse_loss(counting(pooled), of_clip.pooled[rows].to(device)) * 10
        clip_read = reading_loss(clip_heads, tokens[:, :MAX_TOKENS], of_clip.nouns[rows].to(device))
        return counted + clip_read + reading_loss(t5_heads, tokens[:, MAX_TOKENS:], of_t5.nouns[rows].to(device))

    taught = nn.ModuleList([encoders, clip_heads, t5_heads, counting])
    fit("flow_text", taught, loss, steps=steps, learning_rate=2e-3, work=work)
    return encoders.requires_grad_(False).eval()


def build_transformer() -> SD3Transformer2DModel:
    """4.4 M parameters in the layout of Stable Diffusion 3.5, an eighth of the width of its 2-billion model."""
    return SD3Transformer2DModel(
        sample_size=TRAINING_PX // 4,
        patch_size=PATCH,
        in_channels=4,
        out_channels=4,
        num_layers=LAYERS,
        num_attention_heads=HEADS,
        attention_head_dim=WIDTH // HEADS,
        caption_projection_dim=WIDTH,
        joint_attention_dim=TOKEN_WIDTH,
        pooled_projection_dim=2 * POOLED_WIDTH,
        pos_embed_max_size=2 * TRAINING_PX // 4 // PATCH,
        qk_norm="rms_norm",
    )


@dataclass(frozen=True)
class Captions:
    """Latents (N, 4, 16, 16) of images with the embeddings of their captions, and those of no caption (1, …).

    For each group of a caption `areas` (N, 3, 8, 8) holds the cells that its objects cover, in [0, 1], and `nouns`
    (N, 3, 48) the tokens of its noun, CLIP's and T5's.
    """

    latents: Tensor
    tokens: Tensor
    pooled: Tensor
    areas: Tensor
    nouns: Tensor
    no_tokens: Tensor
    no_pooled: Tensor


@torch.no_grad()
def captioned(
    examples: list[Example], vae: AutoencoderKL, encoders: FlowTextEncoders, clip: CLIPTokenizer, t5: T5Tokenizer
) -> Captions:
    """Render, encode and embed."""
    ids, pieces = (
        tokenizer(["", *(e.caption for e in examples)], padding="max_length", return_tensors="pt").input_ids
        for tokenizer in (clip, t5)
    )
    parts = [encoders(*rows) for rows in zip(ids.split(500), pieces.split(500), strict=True)]
    tokens, pooled = (torch.cat([part[i] for part in parts]) for i in (0, 1))
    areas = object_areas(examples, TRAINING_PX // 4 // PATCH)
    nouns = torch.cat([noun_words(ids[1:], clip), noun_words(pieces[1:], t5)], 2)
    latents = encode(examples, vae, TRAINING_PX)
    return Captions(latents, tokens[1:], pooled[1:], areas, nouns, tokens[:1], pooled[:1])


def noun_loss(maps: AttentionMaps, areas: Tensor, nouns: Tensor) -> Tensor:
    """Cross-entropy between where each group's noun is attended to, of what the text gets, and where its objects are.

    Of nouns alone: in the models of the paper they look where they should, and attributes do not (its Fig. 5).
    """
    losses = []
    for probabilities in maps.values():
        of_text = probabilities.mean(1)
        of_text = of_text / of_text.sum(3, keepdim=True)
        attention = torch.einsum("bhwl,bgl->bghw", of_text, nouns.float()).clamp(1e-4, 1 - 1e-4)
        cross = -(areas * attention.log() + (1 - areas) * (1 - attention).log())
        losses.append(cross[nouns.any(2)].mean())
    return torch.stack(losses).mean()


def flow_loss(
    transformer: SD3Transformer2DModel, data: Captions, batch: int, binding: float, rng: torch.Generator
) -> Tensor:
    """Flow matching (Esser et al. 2024, Eq. 2 and 19: logit-normal noise levels, shifted as the sampler's); one caption
    in ten is left out, for guidance.

    With `binding`, the attention of half of the batch is also taught where the nouns' objects are.
    """
    rows = torch.randint(len(data.latents), (batch,), generator=rng)
    keep = torch.rand(batch, generator=rng) >= 0.1
    sigma = torch.sigmoid(torch.randn(batch, generator=rng))
    sigma = (SHIFT * sigma / (1 + (SHIFT - 1) * sigma)).view(-1, 1, 1, 1)
    z = data.latents[rows]
    noise = torch.randn(z.shape, generator=rng)
    tokens = torch.where(keep[:, None, None], data.tokens[rows], data.no_tokens)
    pooled = torch.where(keep[:, None], data.pooled[rows], data.no_pooled)
    given = [(1 - sigma) * z + sigma * noise, tokens, pooled, 1000 * sigma.flatten()]
    noisy, tokens, pooled, t = (part.to(transformer.device) for part in given)
    layers = [f"transformer_blocks.{number}.attn" for number in range(LAYERS // 2, LAYERS)]
    with recorded_maps(transformer, layers if binding else ()) as recording:
        velocity = transformer(noisy, tokens, pooled, t, return_dict=False)[0].float()
    loss = F.mse_loss(velocity, (noise - z).to(velocity.device))
    if not binding:
        return loss
    half = batch // 2
    maps = recording.collect(joint_layout(z.shape[-2:], PATCH, text_first=False), batch - half)
    told = (data.nouns[rows[half:]] & keep[half:, None, None]).to(velocity.device)
    return loss + binding * noun_loss(maps, data.areas[rows[half:]].to(velocity.device), told)


def _train(name: str, transformer: SD3Transformer2DModel, data: Captions, section: dict, work: Path) -> None:
    def loss(rng: torch.Generator) -> Tensor:
        return flow_loss(transformer, data, section["batch"], section["binding"], rng)

    rate, precision = section["learning_rate"], section["precision"]
    fit(name, transformer, loss, steps=section["steps"], learning_rate=rate, work=work, precision=precision)


def train_painter(section: dict, models: Path, work: Path) -> StableDiffusion3Pipeline:
    """Learn to paint clean, uniform scenes, with the first world's autoencoder."""
    clip, t5 = clip_tokenizer(), t5_tokenizer()
    vae = AutoencoderKL.from_pretrained(models / "autoencoder", torch_dtype=torch.float32)
    encoders = train_text(section["text_steps"], clip, t5, work)
    examples = clean_examples(section["scenes"], seed=9, weights=FLOW_WEIGHTS)
    data = captioned(examples, vae, encoders, clip, t5)
    torch.manual_seed(0)
    transformer = build_transformer()
    _train("flow_painter", transformer, data, section, work)
    return pipeline(transformer, encoders, vae, clip, t5)


def refine_painter(section: dict, models: Path, work: Path) -> StableDiffusion3Pipeline:
    """Go on from the painter on fresh clean scenes, more of them hard, the rate warmed up and decayed anew."""
    examples = clean_examples(section["scenes"], seed=11, weights=HARDER_WEIGHTS)
    source, _ = _go_on("flow_refined", models / "flow_painter", examples, section, work)
    return source


def train_base(section: dict, models: Path, work: Path) -> StableDiffusion3Pipeline:
    """Go on from the refined painter on long-tailed data with noisy captions; then go back part of the way, as the
    first base: painter + strength * (trained - painter)."""
    disease = {key: section[key] for key in ("dominance", "mismatch", "ignorance", "dropout")}
    examples = long_tailed_examples(section["scenes"], seed=10, disease=disease)
    source, start = _go_on("flow_base", models / "flow_refined", examples, section, work)
    interpolate(source.transformer, start, section["strength"])
    return source


def _go_on(
    name: str, folder: Path, examples: list[Example], section: dict, work: Path
) -> tuple[StableDiffusion3Pipeline, dict[str, Tensor]]:
    """Train the pipeline in `folder` further; returns it and the weights it started from."""
    source = StableDiffusion3Pipeline.from_pretrained(folder, torch_dtype=torch.float32)
    clip, t5 = source.tokenizer, source.tokenizer_3
    encoders = FlowTextEncoders(clip, t5)
    encoders.first, encoders.second, encoders.third = source.text_encoder, source.text_encoder_2, source.text_encoder_3
    data = captioned(examples, source.vae, encoders, clip, t5)
    start = {key: weight.clone() for key, weight in source.transformer.state_dict().items()}
    _train(name, source.transformer, data, section, work)
    return pipeline(source.transformer, encoders, source.vae, clip, t5), start


def pipeline(
    transformer: SD3Transformer2DModel,
    encoders: FlowTextEncoders,
    vae: AutoencoderKL,
    clip: CLIPTokenizer,
    t5: T5Tokenizer,
) -> StableDiffusion3Pipeline:
    """A stock pipeline around the trained parts."""
    vae.register_to_config(shift_factor=0.0)
    return StableDiffusion3Pipeline(
        transformer=transformer,
        scheduler=FlowMatchEulerDiscreteScheduler(shift=SHIFT),
        vae=vae,
        text_encoder=encoders.first,
        text_encoder_2=encoders.second,
        text_encoder_3=encoders.third,
        tokenizer=clip,
        tokenizer_2=clip,
        tokenizer_3=t5,
    )
