"""How likely a vision-language model begins its answer to a question about an image with a word."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from comat.captioners.dialogue import check_numerals
from comat.captioners.vlm import Vlm
from comat.params import OneCaptioner

NUMBERS = ("one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")


class FirstWord:
    """`own` is how the model is asked, {prompt} the question; `key` is the parameter that names the model.

    Raises:
        UserError: as `Vlm`, and as `check_numerals`.
    """

    def __init__(self, own: OneCaptioner, device: torch.device, dtype: torch.dtype, key: str) -> None:
        source = (own.captioner_model, own.captioner_revision)
        self.vlm = Vlm(*source, "", own.captioner_question, own.captioner_answer, device, dtype, key)
        check_numerals(self.vlm.dialogue)

    def probabilities(self, images: Tensor, questions: Sequence[str], words: Sequence[str]) -> Tensor:
        """(B,) how likely the answer to each question about its image begins with its word.

        The sum over the first tokens of the word's spellings, each token counted once.

        Args:
            images: (B, 3, H, W) in [0, 1].
        """
        dialogue = self.vlm.dialogue
        inputs = dialogue.inputs(images, [dialogue.asked(question) for question in questions])
        last = inputs["attention_mask"].sum(1) - 1
        logits = self.vlm.logits(inputs, inputs["input_ids"].shape[1] - int(last.min()))
        rows = torch.arange(len(last), device=last.device)
        likely = logits[rows, last - inputs["input_ids"].shape[1]].float().softmax(-1)
        return torch.stack([own[self._first(word)].sum() for own, word in zip(likely, words, strict=True)])

    def _first(self, word: str) -> list[int]:
        coded = (self.vlm.dialogue.tokenizer(text, add_special_tokens=False).input_ids for text in spellings(word))
        return sorted({ids[0] for ids in coded})


def spellings(word: str) -> list[str]:
    """ "two" → "two", "Two", " two", " Two", "2", " 2": those that GenEval 2 takes for the answer."""
    small = word.lower()
    found = [small, small.capitalize()]
    if small in NUMBERS:
        found.append(str(NUMBERS.index(small) + 1))
    return [*found, *(f" {text}" for text in found)]
