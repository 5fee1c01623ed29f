"""The words that an attack may put behind a prompt: each a single token to every tokenizer of the model."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import inflect
import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from comat.corpora.overview import CHUNK
from comat.errors import UserError

SHORTEST = 2
"""Letters of a word."""


@dataclass(frozen=True)
class Words:
    """Candidates, and the token of each for every tokenizer, (V,)."""

    texts: tuple[str, ...]
    ids: tuple[Tensor, ...]

    def __len__(self) -> int:
        return len(self.texts)

    def without(self, named: Sequence[str]) -> Words:
        """Those that are no word of `named`, nor its plural or singular.

        Raises:
            UserError: if fewer than two are left.
        """
        engine, taken = inflect.engine(), set()
        for word in re.findall(r"[a-z]+", " ".join(named).lower()):
            taken |= {word, engine.plural_noun(word), engine.singular_noun(word)}  # False, of one that is no plural
        kept = [row for row, word in enumerate(self.texts) if word not in taken]
        if len(kept) < 2:
            raise UserError(f"of {len(self)} words {len(kept)} may be put behind a prompt: expected two or more")
        rows = torch.tensor(kept)
        return Words(tuple(self.texts[row] for row in kept), tuple(ids[rows] for ids in self.ids))


def candidates(tokenizers: Sequence[PreTrainedTokenizerBase]) -> Words:
    """The lower-case words of the first tokenizer's vocabulary that every tokenizer reads as one token, sorted.

    The published attack chooses among tokens, whatever they are, of one encoder; words can be read by a person, and by
    several encoders of different vocabularies.

    Raises:
        UserError: if there are none.
    """
    decoded = tokenizers[0].batch_decode([[id] for id in range(len(tokenizers[0]))])
    texts = sorted({text.strip() for text in decoded if re.fullmatch(rf" *[a-z]{{{SHORTEST},}} *", text)})
    found = [dict(zip(texts, _single(tokenizer, texts), strict=True)) for tokenizer in tokenizers]
    kept = [text for text in texts if all(ids[text] is not None for ids in found)]
    if not kept:
        raise UserError("no word is one token to every tokenizer of this base model: it cannot be attacked by words")
    return Words(tuple(kept), tuple(torch.tensor([ids[text] for text in kept]) for ids in found))


def _single(tokenizer: PreTrainedTokenizerBase, words: Sequence[str]) -> list[int | None]:
    """The token of each word within a text, None where there are several."""
    before = tokenizer("a", add_special_tokens=False).input_ids
    found: list[int | None] = []
    for at in range(0, len(words), CHUNK):
        behind = [f"a {word}" for word in words[at : at + CHUNK]]
        for ids in tokenizer(behind, add_special_tokens=False).input_ids:
            found.append(ids[-1] if len(ids) == len(before) + 1 and ids[:-1] == before else None)
    unknown = tokenizer.unk_token_id
    return [None if id == unknown and unknown != tokenizer.eos_token_id else id for id in found]
