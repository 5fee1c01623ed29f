"""How likely a vision-language model begins its answer to a question about an image with a word."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from comat.captioners.dialogue import Dialogue
from comat.captioners.load import check_dialogue
from comat.captioners.vlm import Vlm
from comat.errors import UserError
from comat.params import OneCaptioner

KEY = "evaluate.geneval2.vqa_model"
"""The parameter that names the model whose first words count."""
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


def check_asked(own: OneCaptioner, key: str) -> None:
    """See, by its files without weights, that a model can be asked what `Params.dialogues` has under `key`.

    Raises:
        UserError: as `check_dialogue`; of GenEval 2's also as `check_numerals`.
    """
    dialogue = check_dialogue(own, key)
    if key == KEY:
        check_numerals(dialogue)


def check_numerals(dialogue: Dialogue) -> None:
    """See that numbers differ by their first token.

    Raises:
        UserError: if the tokenizer writes a blank by itself before every digit, as Llama 2's and so LLaVA 1.5's does:
            the first token of "2" and of "3" is then the same, and any number would count as the right one.
    """
    digits = "123456789"
    if len({dialogue.tokenizer(digit, add_special_tokens=False).input_ids[0] for digit in digits}) < len(digits):
        raise UserError(
            f"{dialogue.said}: its tokenizer begins several numerals with one token, so that the first token of an "
            "answer does not tell a number: name another model, such as Qwen/Qwen3-VL-8B-Instruct"
        )


def spellings(word: str) -> list[str]:
    """ "two" → "two", "Two", " two", " Two", "2", " 2": those that GenEval 2 takes for the answer."""
    small = word.lower()
    found = [small, small.capitalize()]
    if small in NUMBERS:
        found.append(str(NUMBERS.index(small) + 1))
    return [*found, *(f" {text}" for text in found)]
