"""The segmenter: CLIPSeg in miniature, asked for one noun at a time."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import CLIPSegConfig, CLIPSegForImageSegmentation, CLIPTokenizer

from comat.segmenters.clipseg import decode
from comat.shapes.recipe.data import clean_examples, images, noun_masks, unit
from comat.shapes.recipe.fit import fit
from comat.shapes.recipe.tokenizers import MAX_TOKENS
from comat.shapes.world.captions import plural
from comat.shapes.world.scenes import NOUNS

PATCH, PROJECTION = 8, 32
"""Side of a patch in px, and the width of what image and text share."""


def build(tokenizer: CLIPTokenizer, image_size: int = 64) -> CLIPSegForImageSegmentation:
    """0.5 M parameters; pixels are normalised to [-1, 1]."""
    text = {
        "vocab_size": len(tokenizer),
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "max_position_embeddings": MAX_TOKENS,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }
    vision = {
        "hidden_size": 96,
        "intermediate_size": 192,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "image_size": image_size,
        "patch_size": PATCH,
    }
    return CLIPSegForImageSegmentation(
        CLIPSegConfig(
            text_config=text,
            vision_config=vision,
            projection_dim=PROJECTION,
            reduce_dim=96,
            extract_layers=[0, 1, 2],
            decoder_num_attention_heads=4,
            decoder_intermediate_size=192,
            conditional_layer=0,
        )
    )


def naming_loss(patches: Tensor, texts: Tensor, nothing: Tensor, labels: Tensor, scale: Tensor) -> Tensor:
    """Name the noun in every patch by CLIP's similarity to the nouns' texts (Radford et al. 2021): mean cross-entropy.

    Args:
        patches: (B, N, P) projected patches.
        texts: (C, P) embeddings of the nouns.
        nothing: (P,) what a patch of the background is like.
        labels: (B, N) the noun in each patch, C for none.
        scale: CLIP's inverse temperature.
    """
    classes = F.normalize(torch.cat([texts, nothing[None]]), dim=-1)
    similarity = scale * F.normalize(patches, dim=-1) @ classes.T
    return F.cross_entropy(similarity.flatten(0, 1).float(), labels.flatten())


def train(steps: int, tokenizer: CLIPTokenizer, work: Path, precision: str) -> CLIPSegForImageSegmentation:
    """Binary cross-entropy and Dice; two questions in five ask for a noun that is not in the image.

    While it trains, `naming_loss` teaches the encoders what they share. Without it the text encoder, to which all
    nouns look alike at first, may never be heard by the decoder, and any noun then asks for every object.
    """
    torch.manual_seed(0)
    model = build(tokenizer)
    nothing = torch.nn.Embedding(1, PROJECTION)
    examples = clean_examples(10_000, seed=4)
    pixels = images(examples, 64)
    masks = torch.from_numpy(np.stack([noun_masks(e, 64) for e in examples]))
    side = 64 // PATCH
    cover = torch.nn.functional.adaptive_avg_pool2d(masks.float(), side).flatten(2)
    labels = torch.where(cover.amax(1) > 0.1, cover.argmax(1), len(NOUNS))
    present = masks.flatten(2).any(2).float()
    forms = [[noun, f"a {noun}", plural(noun), f"{plural(noun)}"] for noun in NOUNS]
    ids = tokenizer([form for f in forms for form in f], padding="max_length", return_tensors="pt")
    size = 48

    def loss(generator: torch.Generator) -> Tensor:
        rows, device = torch.randint(len(pixels), (size,), generator=generator), model.device
        odds = torch.where(torch.rand(size, 1, generator=generator) < 0.6, present[rows], 1 - present[rows])
        nouns = torch.multinomial(odds + 1e-6, 1, generator=generator).squeeze(1)
        questions = nouns * 4 + torch.randint(4, (size,), generator=generator)
        x = unit(pixels[rows])
        x = x + 0.1 * torch.rand(size, 1, 1, 1, generator=generator) * torch.randn(x.shape, generator=generator)
        texts = model.clip.get_text_features(**ids.to(device)).pooler_output
        seen = model.clip.vision_model(pixel_values=x.to(device), output_hidden_states=True).hidden_states
        logits = decode(model, seen, texts[questions], torch.arange(size), x.shape[-2:]).float()
        form = int(torch.randint(4, (), generator=generator))
        patches = model.clip.visual_projection(seen[-1][:, 1:])
        scale = model.clip.logit_scale.exp()
        named = naming_loss(patches, texts[form::4], nothing.weight[0], labels[rows].to(device), scale)
        target = masks[rows, nouns].float().to(device)
        p = logits.sigmoid()
        dice = 1 - (2 * (p * target).sum((1, 2)) + 1) / (p.sum((1, 2)) + target.sum((1, 2)) + 1)
        return F.binary_cross_entropy_with_logits(logits, target) + 0.3 * dice.mean() + 0.3 * named

    fit(
        "segmenter",
        torch.nn.ModuleList([model, nothing]),
        loss,
        steps=steps,
        learning_rate=1e-3,
        work=work,
        precision=precision,
    )
    return model
