"""The base: an SDXL-style pipeline in miniature that has the paper's two diseases.

It learns to paint on clean, uniform scenes, mostly at 64 px (`painter`), goes on where it is weakest, at its native
128 px and on scenes of many or small objects (`refined`), and then at both on long-tailed data with noisy captions
(`base`), as models learn from the web: every shape has a dominant colour, captions leave colours out, and some name a
colour that is not drawn. What remains is a painter that hears of rare colours too faintly: it draws the dominant colour
(concept mismatching) or leaves an object out (concept ignorance).
"""

from __future__ import annotations

import random
from dataclasses import dataclass, replace
from pathlib import Path

import torch
import torch.nn.functional as F
from diffusers import (
    AutoencoderKL,
    DDPMScheduler,
    EulerDiscreteScheduler,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
)
from torch import Tensor, nn
from transformers import CLIPTokenizer

from comat.diffusion.attention import AttentionMaps, cross_layout, recorded_maps
from comat.shapes.recipe import text
from comat.shapes.recipe.data import CATEGORIES, Example, clean_examples, images, unit
from comat.shapes.recipe.fit import fit
from comat.shapes.recipe.text import POOLED_WIDTH, TOKEN_WIDTH, TextEncoders, noun_tokens, noun_words
from comat.shapes.recipe.tokenizers import clip_tokenizer
from comat.shapes.world.captions import NUMBERS, describe
from comat.shapes.world.scenes import MAX_OBJECTS, NOUNS, Group, Spec, sample_spec, scene_for

DOMINANT = dict(zip(NOUNS, ("red", "blue", "orange", "yellow", "green", "purple"), strict=True))
HARDER_WEIGHTS = (1, 2, 2, 2, 4)
"""Of `CATEGORIES`; small objects and threes are the last that the painter learns: what follows it sees more of them."""
TRAINING_PX, NATIVE_PX = 64, 128
NOISE = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear", "prediction_type": "v_prediction"}


def build_unet() -> UNet2DConditionModel:
    """5.4 M parameters in SDXL's layout: three levels, cross-attention on the lower two; its conditioning on sizes and
    pooled text. It predicts v: at this size the noise itself is too coarse a target at high noise levels."""
    return UNet2DConditionModel(
        sample_size=NATIVE_PX // 4,
        in_channels=4,
        out_channels=4,
        layers_per_block=1,
        block_out_channels=(48, 96, 128),
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        cross_attention_dim=TOKEN_WIDTH,
        attention_head_dim=4,
        norm_num_groups=8,
        use_linear_projection=True,
        addition_embed_type="text_time",
        addition_time_embed_dim=8,
        projection_class_embeddings_input_dim=POOLED_WIDTH + 6 * 8,
    )


def long_tailed_examples(count: int, seed: int, disease: dict[str, float]) -> list[Example]:
    """Scenes and captions of the web's kind. `disease` holds four probabilities.

    `dominance`: an object wears its shape's dominant colour. Of the objects described in another colour,
    `mismatch` are drawn in the dominant one and `ignorance` not at all. `dropout`: a caption leaves a colour out.
    """
    rng = random.Random(f"long-tailed {seed}")
    examples = []
    for category in rng.choices(CATEGORIES, HARDER_WEIGHTS, k=count):
        spec = sample_spec(category, rng)
        groups = [
            replace(g, colour=DOMINANT[g.noun]) if rng.random() < disease["dominance"] else g for g in spec.groups
        ]
        said = [replace(g, colour=None) if rng.random() < disease["dropout"] else g for g in groups]
        drawn = [_suffer(g, rng, disease) for g in groups]
        shown = tuple(g for g in drawn if g) or (groups[0],)
        relation = spec.relation if len(shown) == len(groups) else None
        caption = describe(Spec(tuple(said), spec.relation))
        examples.append(Example(scene_for(Spec(shown, relation), rng), spec, caption))
    return examples


def _suffer(group: Group, rng: random.Random, disease: dict[str, float]) -> Group | None:
    if group.colour == DOMINANT[group.noun]:
        return group
    luck = rng.random()
    if luck < disease["ignorance"]:
        return None
    return replace(group, colour=DOMINANT[group.noun]) if luck < disease["ignorance"] + disease["mismatch"] else group


@torch.no_grad()
def encode(examples: list[Example], vae: AutoencoderKL, size: int) -> Tensor:
    """Scaled latent means of the renders: (N, 4, size/4, size/4)."""
    batches = images(examples, size).split(64)
    return torch.cat([vae.encode(unit(rows)).latent_dist.mean for rows in batches]) * vae.config["scaling_factor"]


@dataclass(frozen=True)
class Captioned:
    """Latents (N, 4, h, w) of images of `side` pixels, with the embeddings of their captions."""

    latents: Tensor
    tokens: Tensor
    pooled: Tensor
    side: int
    batch: int
    areas: Tensor
    words: Tensor


def group_words(examples: list[Example], ids: Tensor, tokenizer: CLIPTokenizer) -> Tensor:
    """For each example and group of its caption its words (N, 3, L), from the article to the noun."""
    nouns = noun_tokens(tokenizer)
    starts = {tokenizer(word).input_ids[1] for word in ("a", "an", *NUMBERS)}
    words = torch.zeros(len(examples), MAX_OBJECTS, ids.shape[1], dtype=torch.bool)
    for row, (example, tokens) in enumerate(zip(examples, ids.tolist(), strict=True)):
        ends = [i for i, token in enumerate(tokens) if token in nouns]
        for group, (_, end) in enumerate(zip(example.spec.groups, ends, strict=True)):
            begin = max(i for i in range(end) if tokens[i] in starts)
            words[row, group, begin : end + 1] = True
    return words


def object_areas(examples: list[Example], cells: int) -> Tensor:
    """For each example and group of its caption the cells its objects cover (N, 3, cells, cells), in [0, 1]."""
    areas = torch.zeros(len(examples), MAX_OBJECTS, cells, cells)
    at = (torch.arange(4 * cells) + 0.5) / (4 * cells)
    for row, example in enumerate(examples):
        for group, noun in enumerate(example.spec.groups):
            for o in (o for o in example.scene.objects if o.noun == noun.noun):
                disc = (at[None] - o.x) ** 2 + (at[:, None] - o.y) ** 2 < o.r**2
                areas[row, group] += F.avg_pool2d(disc[None].float(), 4)[0]
    return areas.clamp(max=1)


def binding_loss(maps: AttentionMaps, areas: Tensor, words: Tensor) -> Tensor:
    """Cross-entropy between where each group's words are attended to and where its objects are."""
    losses = []
    for probabilities in maps.values():
        attention = torch.einsum("bhwl,bgl->bghw", probabilities.mean(1), words.float()).clamp(1e-4, 1 - 1e-4)
        target = F.adaptive_avg_pool2d(areas, (attention.shape[-2], attention.shape[-1]))
        cross = -(target * attention.log() + (1 - target) * (1 - attention).log())
        losses.append(cross[words.any(2)].mean())
    return torch.stack(losses).mean()


@torch.no_grad()
def captioned(
    examples: list[Example],
    vae: AutoencoderKL,
    text: TextEncoders,
    tokenizer: CLIPTokenizer,
    side: int,
    batch: int,
    nouns: bool = False,
) -> Captioned:
    """Render, encode and embed; `batch` examples of this set make one step.

    All words of a group are to attend to its objects, or its `nouns` alone.
    """
    ids = tokenizer([e.caption for e in examples], padding="max_length", return_tensors="pt").input_ids
    parts = [text(rows) for rows in ids.split(500)]
    tokens, pooled = (torch.cat([part[i] for part in parts]) for i in (0, 1))
    return Captioned(
        encode(examples, vae, side),
        tokens,
        pooled,
        side,
        batch,
        object_areas(examples, side // 8),
        noun_words(ids, tokenizer) if nouns else group_words(examples, ids, tokenizer),
    )


def min_snr(noiser: DDPMScheduler, t: Tensor) -> Tensor:
    """Weight of each timestep, (B,), as with min-SNR weights (Hang et al. 2023, gamma = 5)."""
    return (5 * (1 - noiser.alphas_cumprod[t])).clamp(max=1)


def painter_loss(
    unet: UNet2DConditionModel, data: Captioned, noiser: DDPMScheduler, binding: float, rng: torch.Generator
) -> Tensor:
    """Eq. 1 for a model that predicts v, the least noisy timesteps weighing less; one caption in ten is zeroed, for
    guidance.

    With `binding`, the cross-attention of half of the batch is also taught where the objects are: nothing else makes a
    small UNet tell two objects of a caption apart as quickly.
    """
    rows = torch.randint(len(data.latents), (data.batch,), generator=rng)
    keep = (torch.rand(data.batch, generator=rng) >= 0.1).float()
    t = torch.randint(1000, (data.batch,), generator=rng)
    z = data.latents[rows]
    eps = torch.randn(z.shape, generator=rng)
    sizes = torch.tensor([[data.side, data.side, 0, 0, data.side, data.side]], dtype=torch.float32)
    added = {"text_embeds": data.pooled[rows] * keep[:, None], "time_ids": sizes.expand(data.batch, 6)}
    tokens = data.tokens[rows] * keep[:, None, None]
    names = [name for name, _ in unet.named_modules() if name.endswith(".attn2") and not name.startswith("down")]
    # Any whole numbers will do, int64 as well as the int32 that is asked for.
    noisy, velocity = noiser.add_noise(z, eps, t), noiser.get_velocity(z, eps, t)  # type: ignore[arg-type]
    weight = min_snr(noiser, t)
    noisy, velocity, weight, t, tokens = (part.to(unet.device) for part in (noisy, velocity, weight, t, tokens))
    added = {key: part.to(unet.device) for key, part in added.items()}
    with recorded_maps(unet, names if binding else ()) as recording:
        prediction = unet(noisy, t, tokens, added_cond_kwargs=added).sample.float()
    loss = ((prediction - velocity).square().mean((1, 2, 3)) * weight).mean()
    if not binding:
        return loss
    half = data.batch // 2
    told = (data.words[rows[half:]] & (keep[half:, None, None] > 0)).to(unet.device)
    areas = data.areas[rows[half:]].to(unet.device)
    return loss + binding * binding_loss(recording.collect(cross_layout(z.shape[-2:]), data.batch - half), areas, told)


def _train(
    name: str, unet: UNet2DConditionModel, sets: list[Captioned], odds: list[float], section: dict, work: Path
) -> None:
    noiser = DDPMScheduler(**NOISE)

    def loss(rng: torch.Generator) -> Tensor:
        picked = int(torch.multinomial(torch.tensor(odds), 1, generator=rng))
        return painter_loss(unet, sets[picked], noiser, section["binding"], rng)

    rate, precision = section["learning_rate"], section["precision"]
    fit(name, unet, loss, steps=section["steps"], learning_rate=rate, work=work, precision=precision)


def train_painter(section: dict, models: Path, work: Path) -> StableDiffusionXLPipeline:
    """Learn to paint clean, uniform scenes: mostly at the training resolution, one step in four at the native one."""
    tokenizer = clip_tokenizer()
    vae = AutoencoderKL.from_pretrained(models / "autoencoder", torch_dtype=torch.float32)
    encoders = text.train(section["text_steps"], tokenizer, work)
    examples = clean_examples(section["scenes"], seed=6)
    batch = section["batch"]
    small = captioned(examples, vae, encoders, tokenizer, TRAINING_PX, batch)
    large = captioned(examples[: len(examples) // 4], vae, encoders, tokenizer, NATIVE_PX, batch // 4)
    torch.manual_seed(0)
    unet = build_unet()
    _train("painter", unet, [small, large], [0.75, 0.25], section, work)
    return pipeline(unet, encoders, vae, tokenizer)


def refine_painter(section: dict, models: Path, work: Path) -> StableDiffusionXLPipeline:
    """Go on from the painter on fresh clean scenes at both resolutions, the rate warmed up and decayed anew."""
    examples = clean_examples(section["scenes"], seed=8, weights=HARDER_WEIGHTS)
    source, _ = _go_on("refined", models / "painter", examples, section, work)
    return source


def train_base(section: dict, models: Path, work: Path) -> StableDiffusionXLPipeline:
    """Go on at both resolutions on long-tailed data with noisy captions; then go back part of the way.

    The weights end at painter + strength * (trained - painter), weight interpolation (Wortsman et al. 2022): the
    painter keeps its skill, and what a caption says of rare colours is weakened rather than unlearned.
    """
    disease = {key: section[key] for key in ("dominance", "mismatch", "ignorance", "dropout")}
    examples = long_tailed_examples(section["scenes"], seed=7, disease=disease)
    source, start = _go_on("base", models / "refined", examples, section, work)
    interpolate(source.unet, start, section["strength"])
    return source


def _go_on(
    name: str, folder: Path, examples: list[Example], section: dict, work: Path
) -> tuple[StableDiffusionXLPipeline, dict[str, Tensor]]:
    """As `go_on`; returns the pipeline and the weights it started from."""
    source = StableDiffusionXLPipeline.from_pretrained(folder, torch_dtype=torch.float32)
    encoders = TextEncoders(source.tokenizer)
    encoders.first, encoders.second = source.text_encoder, source.text_encoder_2
    return go_on(name, source, encoders, examples, section, work)


def go_on(
    name: str,
    source: StableDiffusionXLPipeline,
    encoders: TextEncoders,
    examples: list[Example],
    section: dict,
    work: Path,
    nouns: bool = False,
) -> tuple[StableDiffusionXLPipeline, dict[str, Tensor]]:
    """Train a pipeline further on what `encoders` say, a share `native` of the steps at 128 px on half of the examples;
    returns it and the weights it started from. `nouns`: as `captioned`."""
    batch, vae, tokenizer = section["batch"], source.vae, source.tokenizer
    small = captioned(examples, vae, encoders, tokenizer, TRAINING_PX, batch, nouns)
    large = captioned(examples[: len(examples) // 2], vae, encoders, tokenizer, NATIVE_PX, batch // 4, nouns)
    start = {key: weight.clone() for key, weight in source.unet.state_dict().items()}
    _train(name, source.unet, [small, large], [1 - section["native"], section["native"]], section, work)
    return pipeline(source.unet, encoders, vae, tokenizer), start


def interpolate(unet: nn.Module, start: dict[str, Tensor], strength: float) -> None:
    """Set every weight to start + strength * (weight - start); strength in [0, 1]."""
    end = unet.state_dict()
    unet.load_state_dict({name: torch.lerp(start[name], end[name], strength) for name in end})


def pipeline(
    unet: UNet2DConditionModel, encoders: TextEncoders, vae: AutoencoderKL, tokenizer: CLIPTokenizer
) -> StableDiffusionXLPipeline:
    """A stock SDXL pipeline around the trained parts."""
    return StableDiffusionXLPipeline(
        vae=vae,
        text_encoder=encoders.first,
        text_encoder_2=encoders.second,
        tokenizer=tokenizer,
        tokenizer_2=tokenizer,
        unet=unet,
        scheduler=EulerDiscreteScheduler(**NOISE, timestep_spacing="leading", steps_offset=1),
        force_zeros_for_empty_prompt=True,
        add_watermarker=False,
    )
