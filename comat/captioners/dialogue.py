"""A question about an image and its answer, as a vision-language model's own processor and chat template write them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import AutoConfig, AutoProcessor, ProcessorMixin

from comat.errors import UserError
from comat.models.loading import loaded

PROMPT = "{prompt}"


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

    def __init__(self, model: str, revision: str | None, prefix: str, question: str, answer: str) -> None:
        self.name, self.question = model, question
        self.prefix, self.answer = f"{prefix} " if prefix else "", answer
        self.processor: ProcessorMixin = loaded(
            model, "processor", lambda: AutoProcessor.from_pretrained(model, revision=revision, trust_remote_code=False)
        )
        _complete(self.processor, model, revision)
        self.tokenizer: Any = getattr(self.processor, "tokenizer", None)
        self._check_processor()
        self.specials = _special_tokens(self.tokenizer)
        self.limits = _limits(self.processor.image_processor)
        self._check_dialogue()

    def answered(self, prompt: str) -> Answered:
        """The dialogue of a prompt, as the model's own template writes it, up to the end of the answer.

        Raises:
            UserError: if the template does not give the answer as it is.
        """
        for token in self.specials:  # "<image>" in a prompt would call for another image
            prompt = prompt.replace(token, " ")
        answer = self.prefix + self.answer.replace(PROMPT, prompt)
        asked = [{"type": "image"}, {"type": "text", "text": self.question.replace(PROMPT, prompt)}]
        user = {"role": "user", "content": asked}
        reply = {"role": "assistant", "content": [{"type": "text", "text": answer}]}
        opening, whole = self._render([user]), self._render([user, reply])
        if whole.count(answer) <= opening.count(answer):
            raise UserError(
                f"captioner_model {self.name!r}: its chat template does not give the answer as it is; "
                "name another model"
            )
        at = whole.rindex(answer)
        stop = at + len(answer)
        end = self._end(whole[stop:]) if PROMPT in self.answer else ""
        return Answered(whole[:stop] + end, at + len(self.prefix))

    def _render(self, dialogue: list[dict]) -> str:
        text = loaded(
            self.name, "its chat template", lambda: self.processor.apply_chat_template(dialogue, tokenize=False)
        )
        assert isinstance(text, str)
        return text

    def _end(self, rest: str) -> str:
        """What ends the answer: the special token that the template puts behind it, or the tokenizer's own."""
        blank = len(rest) - len(rest.lstrip())
        token = next((token for token in self.specials if rest[blank:].startswith(token)), None)
        return rest[:blank] + token if token else self.tokenizer.eos_token or ""

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
        return {**given, "pixel_values": _within(given["pixel_values"], self.limits)}

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
                    f"captioner_model {self.name!r}: its processor writes the answer in other tokens than its "
                    "tokenizer; name another model"
                )
            counts[row, places] = True
        return counts

    def _check_processor(self) -> None:
        for part in ("tokenizer", "image_processor"):
            if getattr(self.processor, part, None) is None:
                raise UserError(
                    f"captioner_model {self.name!r}: its processor is a {type(self.processor).__name__} without "
                    f"{part}: expected a model that reads images and text"
                )
        if not self.tokenizer.is_fast:
            raise UserError(
                f"captioner_model {self.name!r}: its tokenizer does not say which characters a token stands for; "
                "save it as a fast one (tokenizer.json)"
            )
        if not (getattr(self.processor, "chat_template", None) or self.tokenizer.chat_template):
            raise UserError(
                f"captioner_model {self.name!r}: it has no chat template: expected a model tuned to answer, with "
                "chat_template.jinja; or use captioner blip or git"
            )

    @torch.enable_grad()  # a judge is loaded where none are wanted
    def _check_dialogue(self) -> None:
        """See that text and image go through the processor, the image with its gradient.

        Raises:
            UserError: if not.
        """
        grey = torch.full((1, 3, 64, 64), 0.5, requires_grad=True)
        text = self.answered("a thing").text
        pixels = loaded(self.name, "an image by its processor", lambda: self.inputs(grey, [text])["pixel_values"])
        if not pixels.requires_grad:
            raise UserError(
                f"captioner_model {self.name!r}: its {type(self.processor.image_processor).__name__} "
                "passes no gradient to the image: expected one of transformers' torchvision backend"
            )


def _special_tokens(tokenizer: Any) -> list[str]:
    """The texts of the tokens that stand for no text, longest first."""
    added = [str(token) for token in tokenizer.added_tokens_decoder.values() if token.special]
    return sorted({*tokenizer.all_special_tokens, *added}, key=len, reverse=True)


def _complete(processor: Any, model: str, revision: str | None) -> None:
    """Tell a LLaVA's processor of old make what it does not say itself: how many tokens an image is for its model."""
    if getattr(processor, "patch_size", 0) is not None:
        return
    config = loaded(
        model, "config.json", lambda: AutoConfig.from_pretrained(model, revision=revision, trust_remote_code=False)
    )
    processor.patch_size = config.vision_config.patch_size
    processor.vision_feature_select_strategy = config.vision_feature_select_strategy
    processor.num_additional_image_tokens = int("clip_vision" in config.vision_config.model_type)


def _limits(processor: Any) -> tuple[Tensor, Tensor]:
    """(3,) black and white as the processor normalises them, by channel."""
    mean, std = (torch.tensor(getattr(processor, name, None) or default) for name, default in _PLAIN.items())
    if not getattr(processor, "do_normalize", True):
        mean, std = torch.zeros(3), torch.ones(3)
    return (0 - mean) / std, (1 - mean) / std


_PLAIN = {"image_mean": [0.0, 0.0, 0.0], "image_std": [1.0, 1.0, 1.0]}


def _within(pixels: Tensor, limits: tuple[Tensor, Tensor]) -> Tensor:
    """Pixels between black and white: bicubic resizing goes beyond at edges, which on integers is cut off."""
    low, high = (limit.to(pixels) for limit in limits)
    if pixels.ndim >= 4 and pixels.shape[-3] == 3:
        return pixels.clamp(low.view(3, 1, 1), high.view(3, 1, 1))
    return pixels.clamp(low.min(), high.max())  # patches in rows, whose channels stand together
