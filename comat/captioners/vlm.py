"""Any vision-language model of transformers that answers a question about an image, by its own processor and template.

The prompt is the answer, as a captioner has it, or stands in the question and the answer is "Yes": VQAScore (Lin et al.
2024). Image processors of transformers 5 work on tensors with torchvision, so gradients reach the image through them.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel
from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING

from comat.captioners.dialogue import Dialogue
from comat.captioners.scoring import Texts, token_log_likelihood
from comat.errors import UserError
from comat.models.loading import load_config, load_model


class Vlm:
    """Log-likelihood of the answer in a dialogue about the image; question and prefix are masked.

    `shared` is the same model, that another has loaded.
    """

    def __init__(
        self,
        model: str,
        revision: str | None,
        prefix: str,
        question: str,
        answer: str,
        device: torch.device,
        dtype: torch.dtype,
        key: str = "captioner_model",
        shared: PreTrainedModel | None = None,
    ) -> None:
        self.dialogue = Dialogue(model, revision, prefix, question, answer, key)
        kind = vlm_class(model, revision, key)
        self.model = shared or load_model(kind, model, revision, part="VLM", dtype=dtype, device=device)
        self.keeps = "logits_to_keep" in inspect.signature(self.model.forward).parameters

    def log_likelihood(self, images: Tensor, prompts: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Score (B, 3, H, W) images in [0, 1]: log p of the answer's tokens (B, L), and which count (B, L)."""
        answers = [self.dialogue.answered(prompt) for prompt in prompts]
        inputs = self.dialogue.inputs(images, [one.text for one in answers])
        ids, mask = inputs["input_ids"], inputs["attention_mask"]
        texts = Texts(ids, mask, self.dialogue.counts(answers, ids, mask))
        # A token is predicted one place before it stands.
        kept = ids.shape[1] - int(texts.counts.int().argmax(1).min()) + 1
        return token_log_likelihood(self.logits(inputs, kept), texts)

    def logits(self, inputs: dict[str, Tensor], kept: int) -> Tensor:
        """(B, kept, V) logits at the last `kept` places of what `Dialogue.inputs` has made."""
        pixels = inputs["pixel_values"].to(self.model.dtype)
        keep = {"logits_to_keep": kept} if self.keeps else {}
        return self.model(**{**inputs, "pixel_values": pixels}, use_cache=False, **keep).logits[:, -kept:]

    def pieces(self, prompt: str) -> list[str]:
        """The answer's tokens, in order, as text with the space before it; the last is the end, where it counts."""
        return self.dialogue.pieces(prompt)


def vlm_class(model: str, revision: str | None, key: str = "captioner_model") -> type[PreTrainedModel]:
    """The class of transformers for a model that answers questions about images; `key` is the parameter that names it.

    Raises:
        UserError: if it is none.
    """
    config = load_config(model, revision)
    kind: Any = MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING.get(type(config), None)
    if kind is None:
        raise UserError(
            f"{key} {model!r}: it is a {config.model_type}: expected a model of transformers that answers "
            "with text to image and text"
        )
    return kind
