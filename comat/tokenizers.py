"""The tokenizers of a diffusion model, without the model."""

from __future__ import annotations

from collections.abc import Sequence

from transformers import CLIPTokenizer

from comat.errors import UserError
from comat.models.loading import loaded, pipeline_index

CHUNK = 1000
"""Prompts tokenized at once: what the tokenizers keep of each is far larger than its tokens."""


def load_tokenizers(model: str, revision: str | None = None) -> list[CLIPTokenizer]:
    """All CLIP tokenizers of a hub id or folder in diffusers layout.

    Raises:
        UserError: if there are none.
    """

    def load() -> list[CLIPTokenizer]:
        config = pipeline_index(model, revision)
        names = [name for name in ("tokenizer", "tokenizer_2") if config.get(name)]
        return [CLIPTokenizer.from_pretrained(model, subfolder=n, revision=revision or "main") for n in names]

    return loaded(model, "its tokenizers", load)


def too_long(tokenizers: Sequence[CLIPTokenizer], prompts: Sequence[str]) -> list[bool]:
    """Whether a text encoder would not read a prompt to its end, for each prompt."""
    found = []
    for start in range(0, len(prompts), CHUNK):
        part = list(prompts[start : start + CHUNK])
        long = [False] * len(part)
        for tokenizer in tokenizers:
            ids = tokenizer(part, verbose=False).input_ids
            long = [was or len(own) > tokenizer.model_max_length for was, own in zip(long, ids, strict=True)]
        found += long
    return found


def is_too_long(tokenizers: Sequence[CLIPTokenizer], prompt: str) -> bool:
    """Whether a text encoder would not read the prompt to its end."""
    return too_long(tokenizers, [prompt])[0]


def check_length(tokenizers: Sequence[CLIPTokenizer], prompt: str) -> None:
    """Refuse a prompt that a text encoder would not read to its end.

    Raises:
        UserError: with its length, the limit, and what would be cut off.
    """
    for tokenizer in tokenizers:
        if is_too_long([tokenizer], prompt):
            encoded, most = tokenizer(prompt, return_offsets_mapping=True), tokenizer.model_max_length
            cut = prompt[encoded.offset_mapping[most - 1][0] :].strip()
            raise UserError(
                f"the prompt has {len(encoded.input_ids)} tokens, start and end included, and the text encoder reads "
                f"{most}: {cut[:60]!r} would be cut off; shorten it"
            )


def words_of(tokenizer: CLIPTokenizer, prompt: str) -> list[str]:
    """The tokens that a text encoder reads, as text; the start and end tokens are the first and the last."""
    ids = tokenizer(prompt, truncation=True).input_ids
    return [word.strip() for word in tokenizer.batch_decode([[id] for id in ids])]
