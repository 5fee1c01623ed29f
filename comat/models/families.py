"""The one table of the base models that can be trained, by `_class_name` of model_index.json; read without torch.

`models`, `doctor` and `estimate` look here before anything is downloaded, the loader and the tokenizers when it is.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from comat.errors import UserError

Place = Literal["first", "beside", "behind", "pooled"]


@dataclass(frozen=True)
class Text:
    """One text encoder with its tokenizer: parts `text_encoder` and `tokenizer` with the same `suffix`.

    `place`, where its tokens are among the columns of the attention maps: they are the first, stand beside those before
    (column i is the i-th token of each), behind them, or nowhere (only pooled embeddings are read).
    `length`: the most tokens that are read, where it is not for the tokenizer alone to say.
    `lead`: what stands before a prompt and is one word with its first.
    `around`: what the pipeline puts around a prompt, "{}", that the denoiser reads with it; `chat`: it is the
    tokenizer's own template of a question. All of it is among the columns, so that positions of tokens are columns. An
    instruction of which the denoiser sees nothing is no matter of the columns: the family's file puts it in.
    """

    suffix: str = ""
    place: Place = "first"
    length: int | None = None
    optional: bool = False
    lower_case: bool = False
    lead: str = ""
    around: str = "{}"
    chat: bool = False

    @property
    def encoder(self) -> str:
        return f"text_encoder{self.suffix}"

    @property
    def tokenizer(self) -> str:
        return f"tokenizer{self.suffix}"


@dataclass(frozen=True)
class Family:
    """What is known of a family of base models without loading it.

    `backbone`: module and class in `comat.diffusion.backbones`. `denoiser`: the part that LoRA sits on, as stock
    pipelines name it. `flow`: whether it is trained by flow matching, not on a schedule of betas.
    """

    backbone: str
    pipelines: tuple[str, ...]
    denoiser: str
    texts: tuple[Text, ...]
    flow: bool = False
    packing: int = 1
    """How many positions of a latent are stacked into one of the denoiser's input, each with all of its channels."""
    distilled: bool = False
    """Whether guidance is a number that the denoiser takes, if it takes any: it says nothing without a prompt."""
    vae: str = "AutoencoderKL"
    """The class of its autoencoder."""
    unguided: float = 1.0
    """The `guidance_scale` of the stock pipeline that draws by the prompt alone; here it is 1 for all."""


FAMILIES = (
    Family("unets.StableDiffusion", ("StableDiffusionPipeline",), "unet", (Text(),)),
    Family("unets.StableDiffusionXL", ("StableDiffusionXLPipeline",), "unet", (Text(), Text("_2", "beside"))),
    Family(
        "sd3.StableDiffusion3",
        ("StableDiffusion3Pipeline",),
        "transformer",
        (Text(), Text("_2", "beside"), Text("_3", "behind", length=256, optional=True)),
        flow=True,
    ),
    Family("pixart.PixArtAlpha", ("PixArtAlphaPipeline",), "transformer", (Text(length=120, lower_case=True),)),
    Family("pixart.PixArtSigma", ("PixArtSigmaPipeline",), "transformer", (Text(length=300, lower_case=True),)),
    Family(
        "flux.Flux",
        ("FluxPipeline",),
        "transformer",
        (Text(place="pooled"), Text("_2", length=512)),
        flow=True,
        packing=4,
        distilled=True,
    ),
    Family(
        "sana.Sana",
        ("SanaPipeline",),
        "transformer",
        (Text(length=300, lower_case=True, lead=" "),),
        flow=True,
        vae="AutoencoderDC",
    ),
    Family(
        "qwen_image.QwenImage",
        ("QwenImagePipeline",),
        "transformer",
        (Text(length=512, around="{}<|im_end|>\n<|im_start|>assistant\n"),),
        flow=True,
        packing=4,
        vae="AutoencoderKLQwenImage",
    ),
    Family(
        "z_image.ZImage", ("ZImagePipeline",), "transformer", (Text(length=512, chat=True),), flow=True, unguided=0.0
    ),
)
BY_PIPELINE = {name: family for family in FAMILIES for name in family.pipelines}
TEXT_PARTS = sorted({text.encoder for family in FAMILIES for text in family.texts})
TOKENIZER_PARTS = sorted({text.tokenizer for family in FAMILIES for text in family.texts})
DENOISER_PARTS = sorted({family.denoiser for family in FAMILIES})


def family_of(model: str, index: Mapping[str, Any]) -> Family:
    """The family of a pipeline, by what its model_index.json lists.

    Raises:
        UserError: if it is of none of them.
    """
    name = str(index.get("_class_name"))
    if name not in BY_PIPELINE:
        raise UserError(f"model {model!r}: it is a {name:.60}: expected one of {', '.join(BY_PIPELINE)}")
    return BY_PIPELINE[name]


def has_part(index: Mapping[str, Any], part: str) -> bool:
    """Whether the pipeline has `part`; one that was left out is listed as [null, null]."""
    listed = index.get(part)
    return bool(listed[0]) if isinstance(listed, list) and listed else bool(listed)


def texts_of(model: str, family: Family, index: Mapping[str, Any]) -> list[Text]:
    """The text encoders that a pipeline has.

    Raises:
        UserError: if one that its denoiser needs is not listed.
    """
    found = [text for text in family.texts if has_part(index, text.encoder)]
    missing = [text.encoder for text in family.texts if text not in found and not text.optional]
    if missing:
        raise UserError(
            f"model {model!r}: its {family.denoiser} reads what {', '.join(missing)} says: expected it in "
            "model_index.json, found none; name a whole model"
        )
    return found


def left_out(family: Family, index: Mapping[str, Any]) -> list[str]:
    """The parts that a pipeline of the family may do without and does; diffusers must be told so when it loads them."""
    absent = [text for text in family.texts if text.optional and not has_part(index, text.encoder)]
    return [part for text in absent for part in (text.encoder, text.tokenizer)]


def columns(texts: Sequence[Text], lengths: Sequence[int], positions: Sequence[Sequence[int]]) -> tuple[int, ...]:
    """The columns of the attention maps where an entity stands: all that hold one of its tokens of any tokenizer.

    Tokenizers that are read side by side may differ in some prompts ("wow!!!"), so that the entity stands in other
    columns for one than for the other.

    Args:
        texts: the text encoders, of which each reads `lengths` tokens.
        positions: of the entity's tokens, for each tokenizer.

    Raises:
        UserError: if a text encoder does not read as far.
    """
    start = end = 0
    found: set[int] = set()
    for text, length, own in zip(texts, lengths, positions, strict=True):
        if own and max(own) >= length:
            raise UserError(
                f"an entity has a token at position {max(own)}, and {text.encoder} reads {length}: the entities are of "
                "another base model; run `dvc repro entities`"
            )
        if text.place == "pooled":
            continue
        if text.place == "behind":
            start = end
        end = max(end, start + length)
        found |= {start + position for position in own}
    return tuple(sorted(found))
