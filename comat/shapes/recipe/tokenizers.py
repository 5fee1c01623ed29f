"""Tokenizers in the real formats over the words of the world: CLIP's byte-level BPE, T5's pieces, BERT's WordPiece.

CLIP's covers every byte, so any prompt can be encoded; the words of the world are one token each.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from itertools import pairwise

from tokenizers import pre_tokenizers
from transformers import BertTokenizer, CLIPTokenizer, T5Tokenizer

from comat.shapes.world.captions import NUMBERS, plural
from comat.shapes.world.scenes import COLOURS, NOUNS, RELATIONS, SIZES

MAX_TOKENS = 24
START, END = "<|startoftext|>", "<|endoftext|>"


def words() -> list[str]:
    """Every word that a caption of the world can hold, in a fixed order."""
    sized = [size for size in SIZES if size]
    related = [word for relation in RELATIONS for word in relation.split()]
    plurals = [plural(noun) for noun in NOUNS]
    return list(dict.fromkeys(["a", "an", "and", ",", *NUMBERS, *sized, *COLOURS, *NOUNS, *plurals, *related]))


def merges_of(words: Sequence[str]) -> list[tuple[str, str]]:
    """Merges of a byte-level BPE, in their order, that make each of the words one token (Sennrich et al. 2016).

    The commonest pair is merged first, of equals the first by its letters: the library's own trainer takes any of them.
    """
    pieces = [[*word[:-1], word[-1] + "</w>"] for word in words]
    merges = []
    while pairs := Counter(pair for word in pieces for pair in pairwise(word)):
        merges.append(min(pairs, key=lambda pair: (-pairs[pair], pair)))
        pieces = [_merged(word, merges[-1]) for word in pieces]
    return merges


def _merged(word: Sequence[str], pair: tuple[str, str]) -> list[str]:
    out: list[str] = []
    for piece in word:
        if out and (out[-1], piece) == pair:
            out[-1] += piece
        else:
            out.append(piece)
    return out


def clip_tokenizer() -> CLIPTokenizer:
    """CLIP's tokenizer whose merges build exactly the words of the world."""
    merges = merges_of(words())
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    symbols = [*letters, *(letter + "</w>" for letter in letters), *("".join(pair) for pair in merges), START, END]
    vocab = {symbol: index for index, symbol in enumerate(dict.fromkeys(symbols))}
    # The annotation says strings; its BPE takes pairs, and these alone.
    return CLIPTokenizer(vocab=vocab, merges=merges, model_max_length=MAX_TOKENS, pad_token=END)  # type: ignore[arg-type]


def t5_tokenizer() -> T5Tokenizer:
    """T5's tokenizer whose pieces are the words of the world and, far less likely, every printable ASCII sign."""
    signs = ["\u2581", *(chr(code) for code in range(33, 127))]
    pieces = dict.fromkeys(["<pad>", "</s>", "<unk>"], 0.0) | dict.fromkeys(signs, -10.0)
    pieces |= {"\u2581" + word: -1.0 for word in words()}
    return T5Tokenizer(vocab=list(pieces.items()), extra_ids=0, model_max_length=MAX_TOKENS)


def bert_tokenizer() -> BertTokenizer:
    """BERT's tokenizer over the words of the world and single characters."""
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    pieces = [*words(), *"abcdefghijklmnopqrstuvwxyz.,", *(f"##{c}" for c in "abcdefghijklmnopqrstuvwxyz")]
    vocab = {piece: index for index, piece in enumerate(Counter([*special, *pieces]))}
    return BertTokenizer(vocab=vocab, do_lower_case=True, model_max_length=MAX_TOKENS)
