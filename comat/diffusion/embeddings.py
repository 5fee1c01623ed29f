"""Prompt embeddings made beforehand: text encoders may be larger than the denoiser, and are asked once a prompt."""

from __future__ import annotations

from hashlib import sha256
from pathlib import Path

from torch import Tensor

from comat.diffusion.backbones import PromptEmbeddings, Stored
from comat.errors import UserError
from comat.storage.tensor_store import TensorStore

NOT_STORED = "not_stored.json"
"""Stands in the place of the store where none was asked for: the stages load the text encoders themselves."""


def embedding_id(prompt: str) -> str:
    """Of the row of a prompt: its text alone decides."""
    return sha256(prompt.encode()).hexdigest()[:32]


def as_tensors(embeddings: PromptEmbeddings) -> dict[str, Tensor]:
    """The row of one prompt, (1, L, D) and what else there is, without its first dimension."""
    parts = {"tokens": embeddings.tokens, "pooled": embeddings.pooled, "mask": embeddings.mask}
    return {name: part[0] for name, part in parts.items() if part is not None}


def stored_in(folder: Path) -> Stored | None:
    """The embeddings in the folder of stage `prompt_embeddings`; None where it was not asked for any.

    What it gives raises:
        UserError: for a prompt that is not there, or a damaged store.
    """
    if (folder / NOT_STORED).is_file():
        return None
    store = TensorStore(folder)

    def stored(prompt: str) -> PromptEmbeddings:
        id = embedding_id(prompt)
        if id not in store:
            raise UserError(
                f"{folder}: no embeddings of the prompt {prompt[:60]!r}: they are of other prompts; run "
                "`dvc repro prompt_embeddings`"
            )
        return PromptEmbeddings(**{name: part[None] for name, part in store[id].items()})

    return stored
