"""A question about an image and its answer, as a vision-language model's own processor and chat template write them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any

import torch
from torch import Tensor
from transformers import AutoProcessor, ProcessorMixin

from comat.errors import UserError
from comat.models.loading import load_config, loaded

PROMPT = "{prompt}"
HOLE = "\ue000"
"""Stands where a template puts the answer: of the private use area, in no prompt and no template."""
TODAY = date(2024, 7, 26)
"""The date that templates may write, always the same: a likelihood must not depend on the day it is taken on.

The one that Llama 3.2's template writes where there is no clock.
"""
CLOCK = (
    "{%- macro strftime_now(format) -%}{{ format"
    + "".join(f" | replace('%{letter}', '{TODAY:%{letter}}')" for letter in "aAbBcdHIjmMpSxXyY")
    + " }}{%- endmacro +%}"
)
"""Jinja: what templates call for the date, before one that does."""


@dataclass(frozen=True)
class Answered:
    """A dialogue as text, the images' places in it; what is scored begins at character `start`."""

    text: str
    start: int


class Dialogue:
    """`{prompt}` stands for the prompt in question and answer; it keeps its case. `prefix` opens the answer, unscored.

    The token that ends the answer counts where the answer holds the prompt, for a caption that should go on is not the
    prompt; after "Yes" it would say nothing, and VQAScore is the probability of the word alone.
    """

    def __init__(
        self,
        model: str,
        revision: str | None,
        prefix: str,
        question: str,
        answer: str,
        key: str = "captioner_model",
    ) -> None:
        self.name, self.question, self.said = model, question, f"{key} {model!r}"
        self.prefix, self.answer = f"{prefix} " if prefix else "", answer
        self.processor: ProcessorMixin = loaded(
            model, "processor", lambda: AutoProcessor.from_pretrained(model, revision=revision, trust_remote_code=False)
        )
        _complete(self.processor, model, revision)
        self.tokenizer: Any = getattr(self.processor, "tokenizer", None)
        self._check_processor()
        self.specials = _special_tokens(self.tokenizer)
        self.template = _undated(self.processor, self.tokenizer)
        self._check_dialogue()

    def answered(self, prompt: str) -> Answered:
        """The dialogue of a prompt, as the model's own template writes it, up to the end of the answer.

        Raises:
            UserError: if the template does not give the answer as it is, or leaves the question out.
        """
        prompt = self._plain(prompt)
        answer = self.prefix + self.answer.replace(PROMPT, prompt)
        user, before, rest = self._around(prompt)
        if self._render([user, _turn("assistant", answer)]) != before + answer + rest:
            raise UserError(f"{self.said}: its chat template does not give the answer as it is; name another model")
        end = self._end(rest) if PROMPT in self.answer else ""
        return Answered(before + answer + end, len(before + self.prefix))

    def asked(self, prompt: str) -> str:
        """The dialogue of a prompt up to where the model is to answer, as its template asks it to.

        Raises:
            UserError: as `answered`.
        """
        user, before, _ = self._around(self._plain(prompt))
        opened = self._render([user], opened=True)
        # A model that is to think first would be asked for that.
        return opened if opened.rstrip() == before.rstrip() else before

    def _plain(self, prompt: str) -> str:
        """The prompt with single blanks and no special tokens: "<image>" would call for another image."""
        for token in self.specials:
            prompt = prompt.replace(token, " ")
        return " ".join(prompt.split())

    def _around(self, prompt: str) -> tuple[dict, str, str]:
        """The turn that asks, and what the template writes before an answer and behind it."""
        question = self.question.replace(PROMPT, prompt)
        user = _turn("user", question, {"type": "image"})
        before, found, rest = self._render([user, _turn("assistant", HOLE)]).partition(HOLE)
        if not found:
            raise UserError(f"{self.said}: its chat template does not give the answer as it is; name another model")
        if question.strip() not in before:
            raise UserError(f"{self.said}: its chat template leaves out the question; name another model")
        return user, before, rest

    def _render(self, dialogue: list[dict], opened: bool = False) -> str:
        call: Any = self.processor.apply_chat_template
        asked = {"tokenize": False, "add_generation_prompt": opened, "chat_template": self.template}
        text = loaded(self.name, "its chat template", lambda: call(dialogue, **asked))
        assert isinstance(text, str)
        return text

    def _end(self, rest: str) -> str:
        """What ends the answer: the special token that the template puts behind it, or the tokenizer's own."""
        blank = len(rest) - len(rest.lstrip())
        token = next((token for token in self.specials if rest[blank:].startswith(token)), None)
        if token is None and self.tokenizer.eos_token is None:
            raise UserError(
                f"{self.said}: neither its chat template nor its tokenizer (eos_token) says what ends an answer; "
                "name another model"
            )
        return rest[:blank] + token if token else self.tokenizer.eos_token

    def _adds(self, text: str) -> bool:
        """Whether the tokenizer is to open the text: most templates do so themselves."""
        opening = self.tokenizer.bos_token
        return not (opening and text.startswith(opening))

    def inputs(self, images: Tensor, texts: Sequence[str]) -> dict[str, Tensor]:
        """What the model reads: one dialogue for each of the (B, 3, H, W) images in [0, 1], padded on the right."""
        call: Any = self.processor
        given = call(
            text=list(texts),
            images=[[image] for image in images.float()],
            images_kwargs={"do_rescale": False},
            padding=True,
            padding_side="right",
            add_special_tokens=self._adds(texts[0]),
            return_tensors="pt",
        ).to(images.device)
        return dict(given)

    def pieces(self, prompt: str) -> list[str]:
        """The answer's tokens, in order, as text with the space before it; the last is the end, where it counts."""
        one = self.answered(prompt)
        found, start = [], one.start
        for _, end in self._tail(one):
            found.append(one.text[start:end])
            start = end
        return found

    def _tail(self, one: Answered) -> list[tuple[int, int]]:
        """(id, the character where it ends) of the tokens that count: those that end behind `start`."""
        coded = self.tokenizer(one.text, add_special_tokens=self._adds(one.text), return_offsets_mapping=True)
        spans = zip(coded.input_ids, coded.offset_mapping, strict=True)
        return [(token, end) for token, (_, end) in spans if end > one.start]

    def counts(self, answers: Sequence[Answered], ids: Tensor, mask: Tensor) -> Tensor:
        """(B, L) bool: the last tokens of every row, as many as its answer has.

        Where the images stand the processor writes a token for each patch, so places are counted from the end.
        """
        counts = torch.zeros_like(mask, dtype=torch.bool)
        for row, one in enumerate(answers):
            wanted = [token for token, _ in self._tail(one)]
            places = mask[row].nonzero()[-len(wanted) :, 0]
            if ids[row, places].tolist() != wanted:
                raise UserError(
                    f"{self.said}: its processor writes the answer in other tokens than its tokenizer; "
                    "name another model"
                )
            counts[row, places] = True
        return counts

    def _check_processor(self) -> None:
        for part in ("tokenizer", "image_processor"):
            if getattr(self.processor, part, None) is None:
                raise UserError(
                    f"{self.said}: its processor is a {type(self.processor).__name__} without "
                    f"{part}: expected a model that reads images and text"
                )
        if not self.tokenizer.is_fast:
            raise UserError(
                f"{self.said}: its tokenizer does not say which characters a token stands for; "
                "save it as a fast one (tokenizer.json)"
            )
        if not (getattr(self.processor, "chat_template", None) or self.tokenizer.chat_template):
            raise UserError(
                f"{self.said}: it has no chat template: expected a model tuned to answer, with "
                "chat_template.jinja; or use captioner blip or git"
            )

    def _check_dialogue(self) -> None:
        """See that text and image go through the processor.

        Raises:
            UserError: if not.
        """
        text, grey = self.answered("a thing").text, torch.full((1, 3, 64, 64), 0.5)
        loaded(self.name, "an image by its processor", lambda: self.inputs(grey, [text])["pixel_values"])


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


def _turn(role: str, text: str, *before: dict[str, str]) -> dict:
    return {"role": role, "content": [*before, {"type": "text", "text": text}]}


def _undated(processor: Any, tokenizer: Any) -> str | None:
    """The model's template with a clock that stands still; None where it does not ask for the date."""
    template: str | dict[str, str] = getattr(processor, "chat_template", None) or tokenizer.chat_template
    text = template.get("default", "") if isinstance(template, dict) else template
    return CLOCK + text if "strftime_now" in text else None


def _special_tokens(tokenizer: Any) -> list[str]:
    """The texts of the tokens that stand for no text, longest first."""
    added = [str(token) for token in tokenizer.added_tokens_decoder.values() if token.special]
    return sorted({*tokenizer.all_special_tokens, *added}, key=len, reverse=True)


def _complete(processor: Any, model: str, revision: str | None) -> None:
    """Tell a LLaVA's processor of old make what it does not say itself: how many tokens an image is for its model."""
    if getattr(processor, "patch_size", 0) is not None:
        return
    config = load_config(model, revision)
    processor.patch_size = config.vision_config.patch_size
    processor.vision_feature_select_strategy = config.vision_feature_select_strategy
    processor.num_additional_image_tokens = int("clip_vision" in config.vision_config.model_type)
