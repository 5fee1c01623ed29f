"""Tokenizers in the real formats: CLIP's byte-level BPE and BERT's WordPiece, over the words of the world.

CLIP's covers every byte, so any prompt can be encoded; the words of the world are one token each.
"""

from __future__ import annotations

import json
from collections import Counter

from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from transformers import BertTokenizerFast, CLIPTokenizer

from comat.shapes.captions import NUMBERS, plural
from comat.shapes.scenes import COLOURS, NOUNS, RELATIONS, SIZES

MAX_TOKENS = 24
START, END = "<|startoftext|>", "<|endoftext|>"


def words() -> list[str]:
    """Every word that a caption of the world can hold, in a fixed order."""
    sized = [size for size in SIZES if size]
    related = [word for relation in RELATIONS for word in relation.split()]
    plurals = [plural(noun) for noun in NOUNS]
    return list(dict.fromkeys(["a", "an", "and", ",", *NUMBERS, *sized, *COLOURS, *NOUNS, *plurals, *related]))


def clip_tokenizer() -> CLIPTokenizer:
    """CLIP's tokenizer whose merges build exactly the words of the world."""
    bpe = Tokenizer(models.BPE(end_of_word_suffix="</w>"))
    bpe.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    trainer = trainers.BpeTrainer(vocab_size=10_000, end_of_word_suffix="</w>", show_progress=False, min_frequency=1)
    bpe.train_from_iterator([" ".join(words())] * 2, trainer)
    merges = [tuple(pair) for pair in json.loads(bpe.to_str())["model"]["merges"]]
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    symbols = [*letters, *(letter + "</w>" for letter in letters), *("".join(pair) for pair in merges), START, END]
    vocab = {symbol: index for index, symbol in enumerate(dict.fromkeys(symbols))}
    return CLIPTokenizer(vocab=vocab, merges=merges, model_max_length=MAX_TOKENS, pad_token=END)


def bert_tokenizer() -> BertTokenizerFast:
    """BERT's tokenizer over the words of the world and single characters."""
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    pieces = [*words(), *"abcdefghijklmnopqrstuvwxyz.,", *(f"##{c}" for c in "abcdefghijklmnopqrstuvwxyz")]
    vocab = {piece: index for index, piece in enumerate(Counter([*special, *pieces]))}
    return BertTokenizerFast(vocab=vocab, do_lower_case=True, model_max_length=MAX_TOKENS)
