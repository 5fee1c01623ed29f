"""A captioner of another kind: GIT in miniature, one transformer over image and text."""

from __future__ import annotations

from pathlib import Path

from torch import Tensor
from transformers import BertTokenizer, GitConfig, GitForCausalLM

from comat.shapes.recipe.captioner import PATCH, SIDE, place, sizes, teach, token_nll

PATCHES = (SIDE // PATCH) ** 2


def build(tokenizer: BertTokenizer) -> GitForCausalLM:
    """0.9 M parameters; pixels are normalised to [-1, 1]."""
    text, vision = sizes(tokenizer)
    model = GitForCausalLM(GitConfig(vision_config=vision, **text))
    place(model.git.image_encoder.vision_model.embeddings.position_embedding.weight)
    return model


def read(model: GitForCausalLM, x: Tensor, ids: Tensor, pad: int) -> tuple[Tensor, Tensor]:
    """What the image tower says of each patch (B, patches, D), and `token_nll` of captions (B, L) of images `x`."""
    said = model(ids, (ids != pad).long(), pixel_values=x, use_cache=False, output_hidden_states=True)
    # Image and text are one sequence, the image first, its own class token before the patches.
    return said.hidden_states[0][:, 1 : 1 + PATCHES], token_nll(said.logits[:, 1 + PATCHES :], ids, pad)


def train(steps: int, tokenizer: BertTokenizer, work: Path, precision: str) -> GitForCausalLM:
    return teach(build, read, steps, tokenizer, work, precision)
