"""A base that has to bind: its text encoders say each word by itself, those of the other bases a colour at its noun.

It is for one question, what attribute concentration does where a colour is read at its own word, and not shipped.

CLIP is said to read captions much as bags of words (Yuksekgonul et al. 2023); here that is so by construction. What
belongs together, the denoiser must see by the words' places, and attention is taught for nouns alone.
"""

from __future__ import annotations

from pathlib import Path

import torch
import torch.nn.functional as F
from diffusers import StableDiffusionXLPipeline
from torch import Tensor, nn
from transformers import CLIPTokenizer

from comat.shapes.recipe.base import HARDER_WEIGHTS, go_on
from comat.shapes.recipe.data import clean_examples
from comat.shapes.recipe.fit import fit
from comat.shapes.recipe.text import POOLED_WIDTH, TOKEN_WIDTH, TextEncoders, lesson, random_specs
from comat.shapes.recipe.tokenizers import MAX_TOKENS
from comat.shapes.world.scenes import COLOURS, NOUNS


def bag(pooled: Tensor) -> Tensor:
    """Of how many objects there are of each colour and noun (N, 8 * 6 + 4), how many of each colour and of each noun;
    the relations stay: (N, 8 + 6 + 4)."""
    told, relations = pooled.split([len(COLOURS) * len(NOUNS), pooled.shape[1] - len(COLOURS) * len(NOUNS)], 1)
    pairs = told.view(-1, len(COLOURS), len(NOUNS))
    return torch.cat([pairs.sum(2), pairs.sum(1), relations], 1)


def read_apart(steps: int, tokenizer: CLIPTokenizer, work: Path) -> TextEncoders:
    """Encoders of one layer, of which SDXL takes what goes into the last: a token's own word and place, no other's."""
    torch.manual_seed(0)
    told = lesson(tokenizer, random_specs())
    ids, counts = told.ids, bag(told.pooled)
    encoders = TextEncoders(tokenizer, layers=1)
    heads = nn.ModuleDict(
        {
            "word": nn.Linear(TOKEN_WIDTH, len(tokenizer)),
            "place": nn.Linear(TOKEN_WIDTH, MAX_TOKENS),
            "pooled": nn.Linear(POOLED_WIDTH, counts.shape[1]),
        }
    )

    def loss(generator: torch.Generator) -> Tensor:
        rows, device = torch.randint(len(ids), (128,), generator=generator), encoders.first.device
        own = ids[rows].to(device)
        tokens, summary = encoders(own)
        places = torch.arange(own.shape[1], device=device).expand(len(own), -1)
        word, place = (
            F.cross_entropy(heads[name](tokens).flatten(0, 1), target.flatten())
            for name, target in (("word", own), ("place", places))
        )
        return word + place + 10 * F.mse_loss(heads["pooled"](summary), counts[rows].to(device))

    fit("text", nn.ModuleList([encoders, heads]), loss, steps=steps, learning_rate=2e-3, work=work)
    return encoders.requires_grad_(False).eval()


def train_apart(section: dict, models: Path, work: Path) -> StableDiffusionXLPipeline:
    """Go on from the shipped base, which lies beside `models`, on clean scenes: it can paint, and learns to read."""
    source = StableDiffusionXLPipeline.from_pretrained(models.parent / "models/base", torch_dtype=torch.float32)
    encoders = read_apart(section["text_steps"], source.tokenizer, work)
    examples = clean_examples(section["scenes"], seed=10, weights=HARDER_WEIGHTS)
    found, _ = go_on("apart", source, encoders, examples, section, work, nouns=True)
    return found
