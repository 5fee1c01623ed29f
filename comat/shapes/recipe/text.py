"""The text encoders, trained before the painter and frozen afterwards, as CLIP's are in Stable Diffusion.

CLIP learns from pairs of images and captions what a caption says; here the specs of captions are known, so the encoders
learn to tell them: at every noun its colour, size, count and part in the relation, and in the pooled embedding how many
objects of each colour and noun there are. It takes a minute.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, replace
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    CLIPTokenizer,
    PreTrainedTokenizerBase,
)

from comat.shapes.recipe.data import CATEGORIES, WEIGHTS
from comat.shapes.recipe.fit import fit
from comat.shapes.recipe.tokenizers import MAX_TOKENS
from comat.shapes.world.captions import describe, plural
from comat.shapes.world.scenes import COLOURS, MAX_OBJECTS, NOUNS, RELATIONS, SIZES, Spec, sample_spec

PALETTE, SIZE_WORDS = [None, *COLOURS], list(SIZES)
HEADS = {"noun": len(NOUNS), "colour": len(PALETTE), "size": len(SIZE_WORDS), "count": MAX_OBJECTS}
HEADS |= {"part": 1 + 2 * len(RELATIONS)}
TOKEN_WIDTH, POOLED_WIDTH = 128, 48


def clip_config(tokenizer: CLIPTokenizer, layers: int = 3) -> CLIPTextConfig:
    """Of one of two CLIP encoders whose embeddings stand side by side; all but the last layer's are read (SDXL)."""
    return CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=TOKEN_WIDTH // 2,
        intermediate_size=TOKEN_WIDTH,
        num_hidden_layers=layers,
        num_attention_heads=4,
        max_position_embeddings=MAX_TOKENS,
        projection_dim=POOLED_WIDTH,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )


class TextEncoders(nn.Module):
    """SDXL's two text encoders in miniature (0.3 M parameters)."""

    def __init__(self, tokenizer: CLIPTokenizer, layers: int = 3) -> None:
        super().__init__()
        config = clip_config(tokenizer, layers)
        self.first, self.second = CLIPTextModel(config), CLIPTextModelWithProjection(config)

    def forward(self, ids: Tensor) -> tuple[Tensor, Tensor]:
        """Token ids (B, L) → token embeddings (B, L, 128) and pooled embeddings (B, 48), as SDXL takes them."""
        first = self.first(ids, output_hidden_states=True).hidden_states[-2]
        second = self.second(ids, output_hidden_states=True)
        return torch.cat([first, second.hidden_states[-2]], -1), second.text_embeds


def targets(spec: Spec, ids: list[int], noun_ids: dict[int, int]) -> tuple[list[tuple[int, ...]], list[float]]:
    """What the encoders must tell: (position, *classes in the order of HEADS) of each noun, and 48 + 4 numbers."""
    positions = [i for i, token in enumerate(ids) if token in noun_ids]
    rows: list[tuple[int, ...]] = []
    for order, (position, group) in enumerate(zip(positions, spec.groups, strict=True)):
        part = 1 + RELATIONS.index(spec.relation) + order * len(RELATIONS) if spec.relation else 0
        classes = (NOUNS.index(group.noun), PALETTE.index(group.colour), SIZE_WORDS.index(group.size), group.count - 1)
        rows.append((position, *classes, part))
    told = {(g.colour, g.noun): g.count for g in spec.groups}
    counts = [float(told.get((colour, noun), 0)) for colour in COLOURS for noun in NOUNS]
    return rows, counts + [float(spec.relation == relation) for relation in RELATIONS]


@dataclass(frozen=True)
class Lesson:
    """Captions as a tokenizer's `ids` (N, L); at their nouns (N, 3, 1 + len(HEADS)) the position and the classes, -100
    where there is none; and what the pooled embedding must tell (N, 52)."""

    ids: Tensor
    nouns: Tensor
    pooled: Tensor


def random_specs(count: int = 20_000) -> list[Spec]:
    """What random captions say, some silent about colours."""
    rng = random.Random("text")
    specs = [sample_spec(category, rng) for category in rng.choices(CATEGORIES, WEIGHTS, k=count)]
    return [
        replace(s, groups=tuple(g if rng.random() < 0.8 else replace(g, colour=None) for g in s.groups)) for s in specs
    ]


def lesson(tokenizer: PreTrainedTokenizerBase, specs: list[Spec]) -> Lesson:
    """The captions of `specs` for a tokenizer to which every noun is one token."""
    ids = tokenizer([describe(spec) for spec in specs], padding="max_length", return_tensors="pt").input_ids
    noun_ids = noun_tokens(tokenizer)
    told = [targets(spec, row, noun_ids) for spec, row in zip(specs, ids.tolist(), strict=True)]
    nouns = torch.full((len(specs), MAX_OBJECTS, 1 + len(HEADS)), -100)
    for row, (found, _) in enumerate(told):
        nouns[row, : len(found)] = torch.tensor(found)
    return Lesson(ids, nouns, torch.tensor([numbers for _, numbers in told]))


def noun_tokens(tokenizer: PreTrainedTokenizerBase) -> dict[int, int]:
    """The token of each form of a noun → the noun's number."""
    special = set(tokenizer.all_special_ids)
    return {
        next(token for token in tokenizer(form).input_ids if token not in special): index
        for index, noun in enumerate(NOUNS)
        for form in (noun, plural(noun))
    }


def noun_words(ids: Tensor, tokenizer: PreTrainedTokenizerBase) -> Tensor:
    """For each caption, ids (N, L), and group of it the position of its noun: (N, 3, L) bool."""
    known = torch.tensor(list(noun_tokens(tokenizer)))
    found = torch.zeros(len(ids), MAX_OBJECTS, ids.shape[1], dtype=torch.bool)
    for row, own in enumerate(torch.isin(ids, known)):
        for group, position in enumerate(own.nonzero().flatten().tolist()):
            found[row, group, position] = True
    return found


def reading_heads() -> nn.ModuleDict:
    """What reads a noun's classes out of its token's embedding."""
    return nn.ModuleDict({name: nn.Linear(TOKEN_WIDTH, classes) for name, classes in HEADS.items()})


def reading_loss(heads: nn.ModuleDict, tokens: Tensor, nouns: Tensor) -> Tensor:
    """Cross-entropy of the classes of the nouns, (B, 3, 1 + len(HEADS)), read out of tokens (B, L, 128)."""
    at = tokens.gather(1, nouns[:, :, :1].clamp(min=0).expand(-1, -1, TOKEN_WIDTH))
    losses = [
        F.cross_entropy(heads[name](at).flatten(0, 1), nouns[:, :, column].flatten())
        for column, name in enumerate(HEADS, start=1)
    ]
    return torch.stack(losses).sum()


def train(steps: int, tokenizer: CLIPTokenizer, work: Path) -> TextEncoders:
    """Train on 20,000 random captions."""
    torch.manual_seed(0)
    told = lesson(tokenizer, random_specs())
    encoders = TextEncoders(tokenizer)
    heads = reading_heads()
    heads["pooled"] = nn.Linear(POOLED_WIDTH, told.pooled.shape[1])

    def loss(generator: torch.Generator) -> Tensor:
        rows, device = torch.randint(len(told.ids), (128,), generator=generator), encoders.first.device
        tokens, summary = encoders(told.ids[rows].to(device))
        counted = F.mse_loss(heads["pooled"](summary), told.pooled[rows].to(device)) * 10
        return counted + reading_loss(heads, tokens, told.nouns[rows].to(device))

    fit("text", nn.ModuleList([encoders, heads]), loss, steps=steps, learning_rate=2e-3, work=work)
    return encoders.requires_grad_(False).eval()
