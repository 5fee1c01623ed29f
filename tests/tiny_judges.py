"""A small random BLIP for questions about images."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from transformers import BertTokenizerFast, BlipConfig, BlipForQuestionAnswering

from comat.shapes.recipe.tokenizers import bert_tokenizer
from tests.tiny_models import PIXELS, VISION, blip_text
from tests.tiny_segmenters import shake

SIZE = {"size": {"height": 16, "width": 16}}


def vqa_tokenizer() -> BertTokenizerFast:
    """Words of the shapes world, single characters, "yes" and "no"."""
    known = bert_tokenizer().get_vocab()
    words = [*sorted(known, key=known.get), "yes", "no", "?"]
    return BertTokenizerFast(vocab={word: i for i, word in enumerate(words)}, do_lower_case=True, model_max_length=32)


def save_blip_vqa(folder: Path, tokenizer: BertTokenizerFast | None = None) -> Path:
    torch.manual_seed(11)
    tokenizer = tokenizer or vqa_tokenizer()
    # It begins with a token that its tokenizer does not know, as BLIP's does.
    text = blip_text(tokenizer, len(tokenizer) + 1, len(tokenizer))
    config = BlipConfig(text_config=text, vision_config=VISION | {"num_hidden_layers": 1})
    shake(BlipForQuestionAnswering(config)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    (folder / "preprocessor_config.json").write_text(json.dumps(PIXELS | SIZE))
    return folder
