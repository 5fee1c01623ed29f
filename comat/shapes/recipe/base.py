"""The base: an SDXL-style pipeline in miniature that has the paper's two diseases.

It learns to paint on clean, uniform scenes at 64 px (`painter`), then goes on at its native 128 px on long-tailed data
with noisy captions (`base`), as models learn from the web: every shape has a dominant colour; captions leave colours
out; and an object that a caption describes in a rare colour often wears the dominant one in the image
(concept mismatching) or is not there at all (concept ignorance).
"""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path

import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL, EulerDiscreteScheduler, StableDiffusionXLPipeline, UNet2DConditionModel
from diffusers.schedulers import DDPMScheduler
from torch import Tensor, nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

from comat.shapes.captions import describe
from comat.shapes.recipe.data import CATEGORIES, WEIGHTS, Example, clean_examples, images, unit
from comat.shapes.recipe.fit import fit
from comat.shapes.recipe.tokenizers import MAX_TOKENS, clip_tokenizer
from comat.shapes.scenes import NOUNS, Group, Spec, sample_spec, scene_for

DOMINANT = dict(zip(NOUNS, ("red", "blue", "orange", "yellow", "green", "purple"), strict=True))
TRAINING_PX, NATIVE_PX = 64, 128
NOISE = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}


class Painter(nn.Module):
    """The trainable parts of the pipeline: UNet (4.4 M parameters) and two text encoders (0.3 M)."""

    def __init__(self, tokenizer: CLIPTokenizer) -> None:
        super().__init__()
        text = CLIPTextConfig(
            vocab_size=len(tokenizer),
            hidden_size=64,
            intermediate_size=128,
            num_hidden_layers=3,
            num_attention_heads=4,
            max_position_embeddings=MAX_TOKENS,
            projection_dim=48,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
        self.text_encoder = CLIPTextModel(text)
        self.text_encoder_2 = CLIPTextModelWithProjection(text)
        self.unet = UNet2DConditionModel(
            sample_size=NATIVE_PX // 8,
            in_channels=8,
            out_channels=8,
            layers_per_block=1,
            block_out_channels=(64, 128),
            down_block_types=("CrossAttnDownBlock2D",) * 2,
            up_block_types=("CrossAttnUpBlock2D",) * 2,
            cross_attention_dim=128,
            attention_head_dim=4,
            norm_num_groups=8,
            use_linear_projection=True,
            addition_embed_type="text_time",
            addition_time_embed_dim=8,
            projection_class_embeddings_input_dim=48 + 6 * 8,
        )

    def forward(self, z: Tensor, t: Tensor, ids: Tensor, keep: Tensor, side: int) -> Tensor:
        """The noise in z (B, 8, h, w) at timesteps t (B,); captions whose `keep` (B,) is 0 are dropped (zeros)."""
        first = self.text_encoder(ids, output_hidden_states=True).hidden_states[-2]
        second = self.text_encoder_2(ids, output_hidden_states=True)
        tokens = torch.cat([first, second.hidden_states[-2]], -1) * keep[:, None, None]
        sizes = torch.tensor([[side, side, 0, 0, side, side]], dtype=torch.float32).expand(len(z), 6)
        added = {"text_embeds": second.text_embeds * keep[:, None], "time_ids": sizes}
        return self.unet(z, t, tokens, added_cond_kwargs=added).sample


def long_tailed_examples(count: int, seed: int, disease: dict[str, float]) -> list[Example]:
    """Scenes and captions of the web's kind. `disease` holds four probabilities.

    `dominance`: an object wears its shape's dominant colour. Of the objects described in another colour,
    `mismatch` are drawn in the dominant one and `ignorance` not at all. `dropout`: a caption leaves a colour out.
    """
    rng = random.Random(f"long-tailed {seed}")
    examples = []
    for category in rng.choices(CATEGORIES, WEIGHTS, k=count):
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
    """Scaled latent means of the renders: (N, 8, size/8, size/8)."""
    batches = images(examples, size).split(64)
    return torch.cat([vae.encode(unit(rows)).latent_dist.mean for rows in batches]) * vae.config.scaling_factor


def denoising_loss(
    painter: Painter, latents: Tensor, ids: Tensor, batch: int, side: int, rng: torch.Generator
) -> Tensor:
    """Eq. 1 on a random batch, with one caption in ten dropped for classifier-free guidance."""
    noiser = DDPMScheduler(**NOISE)
    rows = torch.randint(len(latents), (batch,), generator=rng)
    keep = (torch.rand(batch, generator=rng) >= 0.1).float()
    t = torch.randint(1000, (batch,), generator=rng)
    z = latents[rows]
    eps = torch.randn(z.shape, generator=rng)
    return F.mse_loss(painter(noiser.add_noise(z, eps, t), t, ids[rows], keep, side).float(), eps)


def _ids(tokenizer: CLIPTokenizer, examples: list[Example]) -> Tensor:
    return tokenizer([e.caption for e in examples], padding="max_length", return_tensors="pt").input_ids


def train_painter(section: dict, models: Path, work: Path) -> StableDiffusionXLPipeline:
    """Learn to paint: clean, uniform scenes at the training resolution."""
    torch.manual_seed(0)
    tokenizer = clip_tokenizer()
    vae = AutoencoderKL.from_pretrained(models / "autoencoder", torch_dtype=torch.float32)
    painter = Painter(tokenizer)
    examples = clean_examples(section["scenes"], seed=6)
    latents, ids = encode(examples, vae, TRAINING_PX), _ids(tokenizer, examples)
    fit(
        "painter",
        painter,
        lambda rng: denoising_loss(painter, latents, ids, section["batch"], TRAINING_PX, rng),
        steps=section["steps"],
        learning_rate=section["learning_rate"],
        work=work,
        precision=section["precision"],
    )
    return pipeline(painter, vae, tokenizer)


def train_base(section: dict, models: Path, work: Path) -> StableDiffusionXLPipeline:
    """Go on at the native resolution, on long-tailed data with noisy captions."""
    source = StableDiffusionXLPipeline.from_pretrained(models / "painter", torch_dtype=torch.float32)
    torch.manual_seed(0)
    painter = Painter(source.tokenizer)
    for part in ("unet", "text_encoder", "text_encoder_2"):
        getattr(painter, part).load_state_dict(getattr(source, part).state_dict())
    disease = {key: section[key] for key in ("dominance", "mismatch", "ignorance", "dropout")}
    examples = long_tailed_examples(section["scenes"], seed=7, disease=disease)
    latents, ids = encode(examples, source.vae, NATIVE_PX), _ids(source.tokenizer, examples)
    fit(
        "base",
        painter,
        lambda rng: denoising_loss(painter, latents, ids, section["batch"], NATIVE_PX, rng),
        steps=section["steps"],
        learning_rate=section["learning_rate"],
        work=work,
        precision=section["precision"],
    )
    vae = AutoencoderKL.from_pretrained(models / "decoder", torch_dtype=torch.float32)
    return pipeline(painter, vae, source.tokenizer)


def pipeline(painter: Painter, vae: AutoencoderKL, tokenizer: CLIPTokenizer) -> StableDiffusionXLPipeline:
    """A stock SDXL pipeline around the trained parts."""
    return StableDiffusionXLPipeline(
        vae=vae,
        text_encoder=painter.text_encoder,
        text_encoder_2=painter.text_encoder_2,
        tokenizer=tokenizer,
        tokenizer_2=tokenizer,
        unet=painter.unet,
        scheduler=EulerDiscreteScheduler(**NOISE, timestep_spacing="leading", steps_offset=1),
        force_zeros_for_empty_prompt=True,
        add_watermarker=False,
    )
