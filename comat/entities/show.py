"""A prompt's entities for people to read."""

from __future__ import annotations

from rich.console import Console
from rich.text import Text

from comat.diffusion.tokenizers import load_tokenizers
from comat.entities.build import filtered_nouns, reasons
from comat.entities.parse import entities_of, load_parser
from comat.entities.tokens import token_positions
from comat.params import Params


def show_entities(params: Params, prompt: str) -> None:
    """Print the prompt in colour, then one line for each noun: attributes, token positions, or why it is dropped."""
    console = Console()
    found = entities_of(load_parser(params.entities.spacy_model)(prompt))
    tokenizers = load_tokenizers(params.base_model, params.base_revision)
    text = Text(prompt)
    why = reasons(found, filtered_nouns())
    for entity, reason in zip(found, why, strict=True):
        text.stylize("dim strike" if reason else "bold green", *entity.noun_span)
        for span in entity.attribute_spans:
            text.stylize("dim" if reason else "cyan", *span)
    console.print(text)
    for entity, reason in zip(found, why, strict=True):
        groups = [[entity.noun_span, *entity.attribute_spans]]
        positions = [token_positions(tokenizer, prompt, groups)[0] for tokenizer in tokenizers]
        words = " ".join([*entity.attributes, entity.noun])
        console.print(f"  {words}: filtered, {reason}" if reason else f"  {words}: tokens {positions}", highlight=False)
