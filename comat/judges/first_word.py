"""How likely a vision-language model begins its answer to a question about an image with a word."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from comat.captioners.vlm import Vlm

NUMBERS = ("one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")


class FirstWord:
    """`question` is how the model is asked; {prompt} stands for the question itself."""

    def __init__(
        self, model: str, revision: str | None, question: str, device: torch.device, dtype: torch.dtype
    ) -> None:
        # What it would answer is not looked at: its dialogue is cut before it.
        self.vlm = Vlm(model, revision, "", question, "Yes", device, dtype)

    def probabilities(self, images: Tensor, questions: Sequence[str], words: Sequence[str]) -> Tensor:
        """(B,) how likely the answer to each question about its image begins with its word.

        The sum over the first tokens of the word's spellings, each token counted once.

        Args:
            images: (B, 3, H, W) in [0, 1].
        """
        dialogue, model = self.vlm.dialogue, self.vlm.model
        answered = [dialogue.answered(question) for question in questions]
        inputs = dialogue.inputs(images, [one.text[: one.start] for one in answered])
        inputs["pixel_values"] = inputs["pixel_values"].to(model.dtype)
        last = inputs["attention_mask"].sum(1) - 1
        kept = inputs["input_ids"].shape[1] - int(last.min())
        keep = {"logits_to_keep": kept} if self.vlm.keeps else {}
        logits = model(**inputs, use_cache=False, **keep).logits[:, -kept:]
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
