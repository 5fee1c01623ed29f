"""The tokenizers of a diffusion model, without the model."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from tokenizers import Tokenizer, normalizers, processors
from transformers import CLIPTokenizer, GemmaTokenizer, PreTrainedTokenizerBase, Qwen2Tokenizer, T5Tokenizer

from comat.errors import UserError
from comat.models.families import Text, columns, family_of, texts_of
from comat.models.loading import loaded, pipeline_index

Columns = Callable[[Sequence[Sequence[int]]], tuple[int, ...]]
"""Positions of an entity's tokens for each tokenizer → its columns (`comat.models.families.columns`)."""
KINDS: dict[str, type[PreTrainedTokenizerBase]] = {
    "CLIPTokenizer": CLIPTokenizer,
    "T5Tokenizer": T5Tokenizer,
    "GemmaTokenizer": GemmaTokenizer,
    "Qwen2Tokenizer": Qwen2Tokenizer,
}
"""What model_index.json may list, with or without the ending `Fast`."""


def load_tokenizers(model: str, revision: str | None = None) -> list[PreTrainedTokenizerBase]:
    """The tokenizers of a hub id or folder in diffusers layout, one for each of its text encoders, in order.

    Raises:
        UserError: if one is missing or of an unknown kind.
    """

    def load() -> list[PreTrainedTokenizerBase]:
        index = pipeline_index(model, revision)
        texts = texts_of(model, family_of(model, index), index)
        return [_load(model, revision, text, index.get(text.tokenizer)) for text in texts]

    return loaded(model, "its tokenizers", load)


def _load(model: str, revision: str | None, text: Text, listed: object) -> PreTrainedTokenizerBase:
    name = str(listed[-1] if isinstance(listed, list) and listed else listed).removesuffix("Fast")
    if name not in KINDS:
        raise UserError(f"model {model!r}: its {text.tokenizer} is a {name:.60}: expected {' or '.join(KINDS)}")
    where: dict[str, Any] = {"subfolder": text.tokenizer, "revision": revision or "main"}
    return as_read(KINDS[name].from_pretrained(model, **where), text)


def find_columns(model: str, revision: str | None = None) -> Columns:
    """What places the tokens of entities among the columns of the attention maps of a model.

    Raises:
        UserError: if its tokenizers cannot be had.
    """
    index = pipeline_index(model, revision)
    texts = texts_of(model, family_of(model, index), index)
    lengths = [tokenizer.model_max_length for tokenizer in load_tokenizers(model, revision)]
    return partial(columns, texts, lengths)


def as_read(tokenizer: PreTrainedTokenizerBase, text: Text) -> PreTrainedTokenizerBase:
    """The tokenizer itself, set to read what the pipeline of its family does: how many tokens, in which case, with what
    around them.

    In the tokenizer, not on the prompt: its offsets stay those of the prompt as written, its positions are columns.
    """
    tokenizer.padding_side = "right"
    if text.length:
        tokenizer.model_max_length = min(tokenizer.model_max_length, text.length)
    backend, added = tokenizer.backend_tokenizer, _normalizers(text)
    around = _asked(tokenizer) if text.chat else text.around
    before, after = (ids_as_written(tokenizer, None, part) if part else [] for part in around.split("{}"))
    if added:
        own = [backend.normalizer] if backend.normalizer else []
        backend.normalizer = normalizers.Sequence([*added, *own])
    if before or after:
        parts = {"before": before, "after": after}
        special = [
            {"id": name, "ids": ids, "tokens": [backend.id_to_token(id) for id in ids]} for name, ids in parts.items()
        ]
        template = processors.TemplateProcessing(
            single=["before"] * bool(before) + ["$A"] + ["after"] * bool(after),
            special_tokens=[one for one in special if one["ids"]],
        )
        own = [backend.post_processor] if backend.post_processor else []
        backend.post_processor = processors.Sequence([*own, template])
    return tokenizer


def _normalizers(text: Text) -> list[normalizers.Normalizer]:
    """What is done to a prompt before the tokenizer's own normalizer."""
    case = [normalizers.Lowercase(), normalizers.Strip()] if text.lower_case else []
    return case + ([normalizers.Prepend(text.lead)] if text.lead else [])


def _asked(tokenizer: PreTrainedTokenizerBase) -> str:
    """A question in the tokenizer's own chat template, with the answer begun."""
    turn = [{"role": "user", "content": "{}"}]
    return str(tokenizer.apply_chat_template(turn, tokenize=False, add_generation_prompt=True, enable_thinking=True))


def ids_as_written(tokenizer: PreTrainedTokenizerBase, text: Text | None, written: str) -> list[int]:
    """Ids of what is no prompt: whole, its case kept, nothing around it, though `as_read` has set it for `text`."""
    backend = Tokenizer.from_str(tokenizer.backend_tokenizer.to_str())
    backend.no_truncation()  # of the call before
    backend.no_padding()
    added = len(_normalizers(text)) if text else 0
    if added:
        backend.normalizer = backend.normalizer[added]
    return backend.encode(written, add_special_tokens=False).ids


def check_length(tokenizers: Sequence[PreTrainedTokenizerBase], prompt: str) -> None:
    """Refuse a prompt that a text encoder would not read to its end.

    Raises:
        UserError: with its length, the limit, and what would be cut off.
    """
    for tokenizer in tokenizers:
        # Else transformers warns of an indexing error before the error is raised here.
        encoded = tokenizer(prompt, verbose=False, return_offsets_mapping=True, return_special_tokens_mask=True)
        around, most = encoded.special_tokens_mask, tokenizer.model_max_length
        if len(around) > most:
            own = [i for i in range(len(around)) if not around[i]]
            cut = prompt[encoded.offset_mapping[own[most - len(around)]][0] :].strip()
            raise UserError(
                f"the prompt has {len(around)} tokens, start and end included, and the text encoder reads "
                f"{most}: {cut[:60]!r} would be cut off; shorten it"
            )


def words_of(tokenizer: PreTrainedTokenizerBase, prompt: str) -> list[str]:
    """The tokens that a text encoder reads, as text; the start and end tokens are the first and the last."""
    ids = tokenizer(prompt, truncation=True).input_ids
    return [word.strip() for word in tokenizer.batch_decode([[id] for id in ids])]
