"""The captioner, BLIP in miniature, trained on clean, uniform scenes; and how any captioner of this world is."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import BertTokenizer, BlipConfig, BlipForConditionalGeneration, PreTrainedModel

from comat.shapes.recipe.data import Example, clean_examples, images, unit
from comat.shapes.recipe.fit import fit

M = TypeVar("M", bound=PreTrainedModel)
SIDE, PATCH, WIDTH = 64, 8, 128
DIRECTION_WEIGHT = 6
"""Directions are one token in ten and the last to be learned: they weigh more in the loss."""


def sizes(tokenizer: BertTokenizer) -> tuple[dict, dict]:
    """The text model's and the image tower's part of the configuration, which is any captioner's of this world."""
    one = {"hidden_size": WIDTH, "intermediate_size": 2 * WIDTH, "num_attention_heads": 4}
    text = one | {
        "vocab_size": len(tokenizer),
        "num_hidden_layers": 2,
        "max_position_embeddings": 32,
        "bos_token_id": tokenizer.cls_token_id,
        "eos_token_id": tokenizer.sep_token_id,
        "pad_token_id": tokenizer.pad_token_id,
        "hidden_dropout_prob": 0.0,
        "attention_probs_dropout_prob": 0.0,
    }
    return text, one | {"num_hidden_layers": 4, "image_size": SIDE, "patch_size": PATCH}


def build(tokenizer: BertTokenizer) -> BlipForConditionalGeneration:
    """1.3 M parameters; pixels are normalised to [-1, 1]."""
    text, vision = sizes(tokenizer)
    text |= {"encoder_hidden_size": WIDTH, "sep_token_id": tokenizer.sep_token_id}
    model = BlipForConditionalGeneration(BlipConfig(text_config=text, vision_config=vision))
    place(model.vision_model.embeddings.position_embedding[0])
    return model


def place(table: Tensor) -> None:
    """Patches that know where they are from the start learn "left of" and "above" much sooner.

    Args:
        table: (1 + patches, D) position embeddings of an image tower, of which the patches' are written over.
    """
    with torch.no_grad():
        table[1:] = 0.3 * _sincos(SIDE // PATCH, WIDTH)


def _sincos(side: int, width: int) -> Tensor:
    """(side², width) sines and cosines of row and column at width/4 wavelengths from two grids to half a cell."""
    at = (torch.arange(side) + 0.5) / side
    angles = at[:, None] * math.pi * 2 ** torch.linspace(0, math.log2(side), width // 4)
    waves = torch.cat([angles.sin(), angles.cos()], 1)
    rows, columns = waves[:, None].expand(side, side, -1), waves[None].expand(side, side, -1)
    return torch.cat([rows, columns], 2).reshape(side * side, width)


def token_nll(logits: Tensor, ids: Tensor, pad: int) -> Tensor:
    """(B, L-1) negative log-likelihood of each token after the first; zero where padded."""
    targets = ids[:, 1:].masked_fill(ids[:, 1:] == pad, -100)
    return F.cross_entropy(logits[:, :-1].float().transpose(1, 2), targets, ignore_index=-100, reduction="none")


def read(model: BlipForConditionalGeneration, x: Tensor, ids: Tensor, pad: int) -> tuple[Tensor, Tensor]:
    """What the image tower says of each patch (B, patches, D), and `token_nll` of captions (B, L) of images `x`."""
    seen = model.vision_model(x)[0]
    logits = model.text_decoder(input_ids=ids, attention_mask=(ids != pad).long(), encoder_hidden_states=seen).logits
    return seen[:, 1:], token_nll(logits, ids, pad)


def object_places(examples: list[Example], side: int) -> Tensor:
    """(N, side², 4) for each patch: centre of the object over it, and its offset from the others' mean; else NaN."""
    at = (torch.arange(side) + 0.5) / side
    y, x = (grid.reshape(-1) for grid in torch.meshgrid(at, at, indexing="ij"))
    places = torch.full((len(examples), side * side, 4), torch.nan)
    for row, example in enumerate(examples):
        objects = example.scene.objects
        for o in objects:
            others = [p for p in objects if p is not o] or [o]
            dx = o.x - sum(p.x for p in others) / len(others)
            dy = o.y - sum(p.y for p in others) / len(others)
            inside = (x - o.x) ** 2 + (y - o.y) ** 2 < o.r**2
            places[row, inside] = torch.tensor([o.x, o.y, dx, dy]) * 4
    return places


def train(steps: int, tokenizer: BertTokenizer, work: Path, precision: str) -> BlipForConditionalGeneration:
    return teach(build, read, steps, tokenizer, work, precision)


def teach(
    build: Callable[[BertTokenizer], M],
    read: Callable[[M, Tensor, Tensor, int], tuple[Tensor, Tensor]],
    steps: int,
    tokenizer: BertTokenizer,
    work: Path,
    precision: str,
) -> M:
    """Maximum likelihood of the true caption, on slightly noisy renders, so that it stays smooth around them.

    While it trains, a linear head asks every patch where its object is: "left of" is learned from captions alone, too,
    but many times more slowly.
    """
    torch.manual_seed(0)
    model = build(tokenizer)
    where = torch.nn.Linear(WIDTH, 4)
    examples = clean_examples(24_000, seed=3, weights=(1, 2, 4, 2, 2))
    pixels = images(examples, SIDE)
    ids = tokenizer([e.caption for e in examples], padding=True, return_tensors="pt").input_ids
    places = object_places(examples, SIDE // PATCH)
    pad = tokenizer.pad_token_id
    directions = torch.tensor(tokenizer.convert_tokens_to_ids(["left", "right", "above", "below"]))
    weights = (ids != pad) + (DIRECTION_WEIGHT - 1) * torch.isin(ids, directions)

    def loss(generator: torch.Generator) -> Tensor:
        rows, device = torch.randint(len(ids), (64,), generator=generator), model.device
        sigma = 0.15 * torch.rand(64, 1, 1, 1, generator=generator)
        x = unit(pixels[rows])
        x = x + sigma * torch.randn(x.shape, generator=generator)
        seen, nll = read(model, x.to(device), ids[rows].to(device), pad)
        weight, at = weights[rows][:, 1:].to(device), places[rows].to(device)
        said = (nll * weight).sum() / weight.sum()
        covered = at.isfinite()
        missed = (where(seen) - at.nan_to_num()).square()
        return said + (missed * covered).sum() / covered.sum()

    fit(
        "captioner",
        torch.nn.ModuleList([model, where]),
        loss,
        steps=steps,
        learning_rate=1e-3,
        work=work,
        precision=precision,
    )
    return model
