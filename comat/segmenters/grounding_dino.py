"""Grounding DINO (Liu et al. 2023) of groundingdino-py, on transformers 5 and without compiled operators."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path

import groundingdino
import torch
from groundingdino.models import build_model
from groundingdino.models.GroundingDINO import groundingdino as definition
from groundingdino.models.GroundingDINO.groundingdino import GroundingDINO
from groundingdino.util import get_tokenlizer
from groundingdino.util.misc import clean_state_dict
from groundingdino.util.slconfig import SLConfig
from torch import Tensor, nn
from torchvision.transforms.v2.functional import normalize, resize
from transformers import AutoTokenizer, BertConfig, BertModel, PreTrainedTokenizerBase

from comat.errors import UserError
from comat.models.loading import loaded
from comat.segmenters.weights import load_weights, read_weights

CONFIGS = Path(groundingdino.__file__).parent / "config"
SHORTEST, LONGEST = 800, 1333  # px, groundingdino.util.inference.load_image
MEAN, STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]


class TextEncoder(nn.Module):
    """Takes the place of the package's BertModelWarper, which calls methods that transformers 5 no longer has.

    Submodules, and so the names of the weights, are the same.
    """

    def __init__(self, bert_model: BertModel) -> None:
        super().__init__()
        self.config = bert_model.config
        self.embeddings, self.encoder, self.pooler = bert_model.embeddings, bert_model.encoder, bert_model.pooler

    def forward(
        self, input_ids: Tensor, token_type_ids: Tensor, attention_mask: Tensor, position_ids: Tensor
    ) -> dict[str, Tensor]:
        """attention_mask: (B, L, L) bool, which token sees which; BERT itself knows (B, L) only."""
        embedded = self.embeddings(input_ids=input_ids, token_type_ids=token_type_ids, position_ids=position_ids)
        hidden = torch.zeros_like(attention_mask, dtype=embedded.dtype)
        hidden.masked_fill_(~attention_mask, torch.finfo(embedded.dtype).min)
        return {"last_hidden_state": self.encoder(embedded, attention_mask=hidden[:, None]).last_hidden_state}


def _masks_by_head(layer: nn.Module, arguments: tuple, options: dict) -> tuple[tuple, dict]:
    """Before a text layer: its (B, L, L) mask for every head, (B * heads, L, L) in the order torch wants, image first.

    The layer itself would repeat heads first, and an image be read with the mask of another one's caption.
    """
    return arguments, options | {"src_mask": options["src_mask"].repeat_interleave(layer.nhead, 0)}


@contextlib.contextmanager
def _text_encoder(tokenizer: PreTrainedTokenizerBase, bert: BertModel) -> Iterator[None]:
    """GroundingDINO's constructor makes its text encoder by functions of its modules: while this lasts, by these.

    The package's own would download weights of BERT, which the detector's file holds as well.
    """
    own = {
        (definition, "BertModelWarper"): TextEncoder,
        (get_tokenlizer, "get_tokenlizer"): lambda _: tokenizer,
        (get_tokenlizer, "get_pretrained_language_model"): lambda _: bert,
    }
    before = {place: getattr(*place) for place in own}
    try:
        for (module, name), value in own.items():
            setattr(module, name, value)
        yield
    finally:
        for (module, name), value in before.items():
            setattr(module, name, value)


def configuration(config: str) -> Path:
    """The file of a configuration: one of groundingdino-py's own by name, or a path.

    Raises:
        UserError: if there is neither.
    """
    path = CONFIGS / config if (CONFIGS / config).is_file() else Path(config)
    if not path.is_file():
        known = ", ".join(sorted(p.name for p in CONFIGS.glob("GroundingDINO*.py")))
        raise UserError(f"segmenter: no Grounding DINO configuration {config!r}; expected a path or one of {known}")
    return path


def build(config: str, text_encoder: str, revision: str | None) -> GroundingDINO:
    """The detector without weights.

    config: a file of groundingdino-py's own configurations by name, or a path of another in its format.
    text_encoder: hub id or folder of the BERT whose configuration and tokenizer it uses.

    Raises:
        UserError: if either is missing.
    """
    path = configuration(config)
    tokenizer = loaded(
        text_encoder,
        "the text encoder's tokenizer",
        lambda: AutoTokenizer.from_pretrained(text_encoder, revision=revision, trust_remote_code=False),
    )
    bert = loaded(
        text_encoder,
        "the text encoder's configuration",
        lambda: BertConfig.from_pretrained(text_encoder, revision=revision or "main"),
    )
    arguments = SLConfig.fromfile(str(path))
    arguments.use_checkpoint = arguments.use_transformer_ckpt = False  # saves memory in training only
    with _text_encoder(tokenizer, BertModel(bert)):
        model = build_model(arguments)
    for layer in model.transformer.encoder.text_layers:
        layer.register_forward_pre_hook(_masks_by_head, with_kwargs=True)
    return model


class GroundingDino:
    """A `Detector`; always in float32, in which its published thresholds were chosen."""

    def __init__(self, model: GroundingDINO, device: torch.device) -> None:
        self.model = model.requires_grad_(False).eval().to(device)
        self.tokenizer = model.tokenizer
        self.shortest = SHORTEST

    @classmethod
    def load(
        cls,
        model: str,
        revision: str | None,
        file: str,
        config: str,
        text_encoder: str,
        text_encoder_revision: str | None,
        device: torch.device,
    ) -> GroundingDino:
        """Weights `file` of a hub id or folder `model`."""
        weights = read_weights(model, file, revision)
        detector = build(config, text_encoder, text_encoder_revision)
        load_weights(detector, clean_state_dict(weights.get("model", weights)), f"Grounding DINO {file!r}")
        return cls(detector, device)

    def preprocess(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) in [0, 1] → resized to 800 px on the shorter side, at most 1333 px on the longer; normalised."""
        return normalize(resize(images, [self.shortest], max_size=LONGEST, antialias=True), MEAN, STD)

    def __call__(self, images: Tensor, captions: Sequence[str]) -> tuple[Tensor, Tensor]:
        seen = self.model(self.preprocess(images), captions=list(captions))
        return seen["pred_logits"].sigmoid(), seen["pred_boxes"]
