"""Visual question answering by BLIP (Li et al. 2022): how likely is "yes", or each of some answers?"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import TypeVar

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from transformers import BlipForQuestionAnswering

from comat.captioners.scoring import encode, token_log_likelihood
from comat.errors import UserError
from comat.judges.benchmark import evaluator
from comat.models.finite import finite
from comat.models.loading import load_model, load_tokenizer
from comat.models.preprocess import image_processor

T = TypeVar("T")

Choices = tuple[str, Sequence[str]]
"""A question and its possible answers, at least one."""


class BlipVqa:
    """Questions are lower-cased, as BLIP was trained, and images are what the model's own processor makes of them."""

    def __init__(self, model: str, revision: str | None, device: torch.device) -> None:
        self.id = evaluator(model, revision)
        self.processor = image_processor(model, revision)
        self.tokenizer = load_tokenizer(model, revision)
        self.model = load_model(
            BlipForQuestionAnswering, model, revision, part="BLIP-VQA", dtype=torch.float32, device=device
        )
        self.device, text = device, self.model.text_decoder.config
        if text.bos_token_id is None:
            raise UserError(
                f"model {model!r}: expected the id of the token that opens an answer, but its text_config.bos_token_id "
                "is null; set it as in BLIP's own config.json, 30522"
            )
        self.start, self.longest = text.bos_token_id, text.max_position_embeddings
        words = self.tokenizer.get_vocab()
        if not {"yes", "no"} <= words.keys():
            raise UserError(f"model {model!r}: its tokenizer has no words yes and no; expected BLIP for questions")
        self.yes_no = [words["yes"], words["no"]]

    @torch.no_grad()
    def yes(self, images: Sequence[np.ndarray], questions: Sequence[Sequence[str]]) -> list[list[float]]:
        """For each of the (H, W, 3) uint8 images the probability of "yes" to each of its questions, in [0, 1].

        p(yes) / (p(yes) + p(no)), each the probability of that token as the first of the answer: T2I-CompBench's
        BLIP-VQA (Huang et al. 2023). Above 1/2 the answer "yes" is likelier than "no".
        """
        found = torch.zeros(sum(map(len, questions)))
        for rows, states in self._read(images, questions):
            start = torch.full((len(rows), 1), self.start, device=self.device)
            logits = self.model.text_decoder(input_ids=start, encoder_hidden_states=states).logits[:, 0]
            # The softmax over two logits is the ratio of their probabilities.
            found[rows] = finite(logits[:, self.yes_no], "BLIP-VQA", logits.dtype).softmax(-1)[:, 0].cpu()
        return _nested(found.tolist(), questions)

    @torch.no_grad()
    def log_likelihoods(
        self, images: Sequence[np.ndarray], questions: Sequence[Sequence[Choices]]
    ) -> list[list[list[float]]]:
        """For each of the images and each of its questions the log-likelihood of every choice.

        The sum over the answer's tokens, its end included: by it BLIP ranks answers.
        """
        choices = [own for group in questions for _, own in group]
        found: list[list[float]] = [[] for _ in choices]
        for rows, states in self._read(images, [[text for text, _ in group] for group in questions]):
            sizes = [len(choices[row]) for row in rows]
            answers = [choice.lower() for row in rows for choice in choices[row]]
            texts = encode(self.tokenizer, answers, 0, self.longest, self.device)
            ids = texts.ids.clone()
            ids[:, 0] = self.start
            seen = states[_owners(sizes, self.device)]
            logits = self.model.text_decoder(ids, attention_mask=texts.mask, encoder_hidden_states=seen).logits
            scores, _ = token_log_likelihood(logits, texts)
            scores = finite(scores, "BLIP-VQA", logits.dtype)
            for row, own in zip(rows, scores.sum(-1).cpu().split(sizes), strict=True):
                found[row] = own.tolist()
        return _nested(found, questions)

    def _read(
        self, images: Sequence[np.ndarray], questions: Sequence[Sequence[str]]
    ) -> Iterator[tuple[list[int], Tensor]]:
        """What the question encoder makes of the images' questions: which of them, counted through, and (n, L, D).

        Questions of one length come together. transformers 5.23's decoder of BLIP does not heed the mask of the states
        that it attends to, so there must be no padding among them.
        """
        asked = [(image, own) for image, own in zip(images, questions, strict=True) if own]
        if not asked:
            return
        pictures = [Image.fromarray(image) for image, _ in asked]
        pixels = self.processor(pictures, return_tensors="pt").pixel_values.to(self.device)
        seen = self.model.vision_model(pixels).last_hidden_state
        whose = _owners([len(own) for _, own in asked], self.device)
        texts = [question.lower() for _, own in asked for question in own]
        tokens = self.tokenizer(texts, truncation=True, max_length=self.longest).input_ids
        by_length: dict[int, list[int]] = defaultdict(list)
        for row, ids in enumerate(tokens):
            by_length[len(ids)].append(row)
        for rows in by_length.values():
            ids = torch.tensor([tokens[row] for row in rows], device=self.device)
            yield rows, self.model.text_encoder(ids, encoder_hidden_states=seen[whose[rows]]).last_hidden_state


def _nested(rows: Sequence[T], like: Sequence[Sequence]) -> list[list[T]]:
    """Rows counted through → the rows of each image."""
    left = iter(rows)
    return [[next(left) for _ in own] for own in like]


def _owners(counts: Sequence[int], device: torch.device) -> Tensor:
    """[2, 1] → 0, 0, 1."""
    return torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts)).to(device)
