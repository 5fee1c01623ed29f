"""The tokenizers of a diffusion model, without the model."""

from __future__ import annotations

from diffusers import DiffusionPipeline
from transformers import CLIPTokenizer

from comat.errors import UserError


def load_tokenizers(model: str, revision: str | None = None) -> list[CLIPTokenizer]:
    """All CLIP tokenizers of a hub id or folder in diffusers layout.

    Raises:
        UserError: if there are none.
    """
    try:
        config = DiffusionPipeline.load_config(model, revision=revision)
        names = [name for name in ("tokenizer", "tokenizer_2") if config.get(name)]
        return [CLIPTokenizer.from_pretrained(model, subfolder=n, revision=revision or "main") for n in names]
    except (OSError, ValueError) as error:
        reason = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
        raise UserError(f"base_model {model!r}: cannot load its tokenizers: {reason[:300]}") from None
