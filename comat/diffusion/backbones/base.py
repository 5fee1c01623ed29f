"""A text-to-image model as the rest of the code sees it. Nothing outside this folder knows a family of models."""

from __future__ import annotations

import fnmatch
import os
import shutil
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from diffusers import ModelMixin
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from comat.diffusion.attention import Layout
from comat.diffusion.backbones import autoencoder
from comat.diffusion.schedulers import Sampler, flow_times, make_sampler, training_target
from comat.errors import UserError
from comat.models.families import Family, Text, columns
from comat.tokenizers import ids_as_written, words_of


@dataclass(frozen=True)
class PromptEmbeddings:
    """Encoded prompts: `tokens` (B, L, D); some families' `pooled` (B, P), and which tokens are read, `mask` (B, L)."""

    tokens: Tensor
    pooled: Tensor | None = None
    mask: Tensor | None = None

    def __len__(self) -> int:
        return len(self.tokens)

    def __getitem__(self, rows: slice | list[int] | Tensor) -> PromptEmbeddings:
        return self._each(lambda part: part[rows])

    def repeat(self, count: int) -> PromptEmbeddings:
        """One prompt, `count` times."""
        return self._each(lambda part: part.expand(count, *part.shape[1:]))

    def to(self, device: torch.device) -> PromptEmbeddings:
        return self._each(lambda part: part.to(device))

    def zeros(self) -> PromptEmbeddings:
        """Embeddings of the same shapes that say nothing."""
        return self._each(torch.zeros_like)

    def _each(self, do: Callable[[Tensor], Tensor]) -> PromptEmbeddings:
        tokens, *others = (None if part is None else do(part) for part in (self.tokens, self.pooled, self.mask))
        assert tokens is not None
        return PromptEmbeddings(tokens, *others)

    @staticmethod
    def cat(parts: Sequence[PromptEmbeddings]) -> PromptEmbeddings:
        pooled = [part.pooled for part in parts if part.pooled is not None]
        masks = [part.mask for part in parts if part.mask is not None]
        return PromptEmbeddings(
            torch.cat([part.tokens for part in parts]),
            torch.cat(pooled) if pooled else None,
            torch.cat(masks) if masks else None,
        )


Stored = Callable[[str], PromptEmbeddings]
"""What the text encoders said of a prompt, (1, L, D), made beforehand."""


class Backbone(ABC):
    """A frozen text-to-image model. Latents are scaled and (B, C, h, w); images are (B, 3, H, W) in [0, 1].

    A family is a subclass: the classes of its parts, how its prompts are encoded and its denoiser is asked, and where
    in its attention the text is.
    """

    DENOISER: ClassVar[type[ModelMixin]]
    ENCODERS: ClassVar[tuple[type[PreTrainedModel], ...]]
    """Of `Family.texts`."""
    TEXT: ClassVar[Literal["cross", "projected", "joint"]]
    """How its attention reads the text encoders' words: as they are, projected first, or jointly with the image's."""
    LORA_TARGETS: ClassVar[tuple[str, ...]]
    """The attention projections that get LoRA, by the ends of their names."""

    def __init__(
        self,
        family: Family,
        texts: Sequence[Text],
        denoiser: Any,  # a ModelMixin with PeftAdapterMixin, of class DENOISER
        vae: Any,  # a ModelMixin, of the class that the family names
        text_encoders: Sequence[PreTrainedModel],
        tokenizers: Sequence[PreTrainedTokenizerBase],
        scheduler_config: Mapping[str, Any],
        index: Mapping[str, Any] | None = None,
        stored: Stored | None = None,
    ) -> None:
        """Freeze the parts. `texts` are those of `family.texts` that there are; `index` is model_index.json; without
        text encoders, `stored` holds what they say."""
        self.family, self.texts, self.stored = family, list(texts), stored
        self.denoiser, self.vae = denoiser, vae
        self._sampling: Callable[..., Any] = denoiser
        self.text_encoders, self.tokenizers = list(text_encoders), list(tokenizers)
        self.scheduler_config = dict(scheduler_config)
        self.vae_scale = autoencoder.coder(vae).reduction
        for module in (denoiser, vae, *text_encoders):
            module.requires_grad_(False).eval()
        self._written: dict[str, list[int]] = {}
        self.null = self.encode_nothing(index or {})

    @property
    def device(self) -> torch.device:
        return self.denoiser.device

    @property
    def dtype(self) -> torch.dtype:
        return self.vae.dtype

    # Sizes.

    @property
    def patch(self) -> int:
        """Side of the square of latent positions that is one token of the denoiser; 1 for a UNet."""
        return 1

    @property
    def channels(self) -> int:
        """Of its latents."""
        return self.denoiser.config["in_channels"] // self.family.packing

    def latent_shape(self, resolution: int) -> tuple[int, int, int]:
        """(C, h, w) of an image of `resolution` pixels.

        Raises:
            UserError: if it has no whole latent, or this no whole patches.
        """
        unit = self.vae_scale * self.patch
        if resolution % unit:
            raise UserError(
                f"images of {resolution} px: expected a multiple of {unit}, as this base model draws; change "
                "resolution or native_resolution"
            )
        side = resolution // self.vae_scale
        return (self.channels, side, side)

    # Prompts.

    def encode_prompts(self, prompts: Sequence[str]) -> PromptEmbeddings:
        """Encode prompts, cut and padded to the lengths that the encoders read, or look them up.

        One after another: in a batch the last digits may depend on how many there are, and those of a prompt are the
        same wherever and whenever it is encoded.

        Raises:
            UserError: for a prompt whose embeddings should be stored and are not.
        """
        if self.stored:
            return PromptEmbeddings.cat([self.stored(prompt) for prompt in prompts]).to(self.device)
        with torch.no_grad():
            return PromptEmbeddings.cat([self._encode([prompt]) for prompt in prompts])

    def encode_with_gradients(self, prompt: str) -> PromptEmbeddings:
        """One prompt, (1, L, D), with the graph back to the token embeddings of the text encoders.

        Raises:
            UserError: if there are no text encoders, for what they say is stored.
        """
        if self.stored:
            raise UserError("prompts are looked up here, not encoded: expected a model with its text encoders")
        return self._encode([prompt])

    @abstractmethod
    def _encode(self, prompts: Sequence[str]) -> PromptEmbeddings:
        """What the text encoders make of prompts."""

    def encode_nothing(self, index: Mapping[str, Any]) -> PromptEmbeddings:
        """The embeddings (1, L, D) of no prompt, which guidance leads away from."""
        return self.encode_prompts([""])

    def _tokenized(self, number: int, prompts: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Ids and attention mask (B, L) of the tokenizer with this number, on the device of its encoder."""
        encoded = self.tokenizers[number](list(prompts), padding="max_length", truncation=True, return_tensors="pt")
        device = self.text_encoders[number].device
        return encoded.input_ids.to(device), encoded.attention_mask.to(device)

    def _instructed(
        self, number: int, prompts: Sequence[str], instruction: str, place: int
    ) -> tuple[Tensor, Tensor, list[int]]:
        """As `_tokenized`, with an instruction put in at position `place`; and which of all tokens are columns.

        The encoder reads the instruction and the denoiser sees nothing of it: it shifts no position.
        """
        ids, mask = self._tokenized(number, prompts)
        if instruction not in self._written:
            self._written[instruction] = ids_as_written(self.tokenizers[number], self.texts[number], instruction)
        written = self._written[instruction]
        extra = torch.tensor(written, dtype=ids.dtype, device=ids.device).expand(len(ids), -1)

        def put_in(whole: Tensor, part: Tensor) -> Tensor:
            return torch.cat([whole[:, :place], part, whole[:, place:]], 1)

        whole = put_in(ids, extra)
        kept = [*range(place), *range(place + len(written), whole.shape[1])]
        return whole, put_in(mask, torch.ones_like(extra)), kept

    def columns(self, positions: Sequence[Sequence[int]]) -> tuple[int, ...]:
        """The columns of the attention maps of an entity with tokens at `positions`, for each tokenizer."""
        return columns(self.texts, [tokenizer.model_max_length for tokenizer in self.tokenizers], positions)

    def words(self, prompt: str) -> list[str]:
        """What each column of the attention maps says, up to the last that says something."""
        found: dict[int, str] = {}
        for number, tokenizer in enumerate(self.tokenizers):
            for position, word in enumerate(words_of(tokenizer, prompt)):
                own = [[position] if number == other else [] for other in range(len(self.tokenizers))]
                for column in self.columns(own):
                    found.setdefault(column, word)
        return [found.get(column, "") for column in range(max(found) + 1)]

    def spoken(self, prompt: str) -> list[int]:
        """The columns of the attention maps that hold a token of the prompt itself, none of those around it."""
        own = []
        for tokenizer in self.tokenizers:
            read = tokenizer(prompt, truncation=True, return_special_tokens_mask=True)
            around, special = read.special_tokens_mask, set(tokenizer.all_special_ids)
            own.append([i for i, id in enumerate(read.input_ids) if id not in special and not around[i]])
        return list(self.columns(own))

    # Sampling.

    def sampler(self, name: str, steps: int, latent_size: Sequence[int]) -> Sampler:
        """A fresh sampler of `steps` steps for latents of (h, w); "model" is the one that the model came with.

        Raises:
            UserError: if it is none for this model, or the steps do not fit its schedule.
        """
        return make_sampler(name, self.scheduler_config, steps, flow=self.family.flow)

    @abstractmethod
    def denoise(
        self, z: Tensor, t: Tensor, prompts: PromptEmbeddings, guidance: float = 1.0, *, sampling: bool = False
    ) -> Tensor:
        """What the denoiser says of z (B, C, h, w), as the sampler gives it, at timestep t (0-dimensional, or (B,)).

        `guidance` is for models that were distilled to take it; `sampling` goes through the compiled denoiser.
        """

    def guided(
        self, z: Tensor, t: Tensor, prompts: PromptEmbeddings, guidance_scale: float, *, sampling: bool = False
    ) -> Tensor:
        """Classifier-free guidance in one call at timestep t (0-dimensional, or (B,)), unconditional half first;
        `sampling` without gradients or maps.

        A guidance scale of 1 asks for the prompts alone, so that half of the work is enough.
        """
        t = t.to(z.device)  # samplers keep their timesteps on the CPU, and only UNets bring them over
        if guidance_scale == 1:
            return self.denoise(z, t, prompts, sampling=sampling)
        both = PromptEmbeddings.cat([self.null.repeat(len(z)), prompts])
        both_times = torch.cat([t, t]) if t.ndim else t
        halves = self.denoise(torch.cat([z, z]), both_times, both, sampling=sampling).chunk(2)
        unconditional, conditional = halves
        return self._combined(unconditional, conditional, guidance_scale)

    def _combined(self, unconditional: Tensor, conditional: Tensor, guidance_scale: float) -> Tensor:
        """What guidance makes of both predictions (B, C, h, w)."""
        return unconditional + guidance_scale * (conditional - unconditional)

    def judged(self, z: Tensor) -> Tensor:
        """What the denoiser says of clean latents z (B, C, h, w), without a prompt, as a discriminator asks it."""
        t = torch.tensor(CLEAN, device=z.device)
        return self.denoise(z, t, self.null.repeat(len(z)))

    def draw_times(self, count: int, latent_size: Sequence[int], rng: torch.Generator) -> Tensor:
        """Timesteps (count,) to train the denoiser at; those of flow matching are drawn as Esser et al. 2024 do."""
        if self.family.flow:
            return flow_times(self.sampler("model", 1000, latent_size), count, rng)
        return torch.randint(1000, (count,), generator=rng)

    def training_target(self, z0: Tensor, noise: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        """Noisy latents at t (B,), and what the denoiser should say of them: noise, velocity or image (Eq. 1)."""
        return training_target(self.scheduler_config, z0, noise, t, flow=self.family.flow)

    def compile(self) -> None:
        """From now on sampling (`guided` with `sampling`) goes through `torch.compile`; nothing else does.

        The first batch of each shape waits for the compiler, minutes for a large model. Results differ by rounding.

        Raises:
            UserError: where there is no compiler to turn its code into a program.
        """
        if self.device.type == "cpu" and not shutil.which(os.environ.get("CXX", "g++")):
            raise UserError("compile: true needs a C++ compiler on a CPU, found none; install g++, or set it to false")
        self._sampling = torch.compile(self.denoiser)

    # Images.

    def decode(self, z: Tensor) -> Tensor:
        """Latents to images, not clamped."""
        return autoencoder.decode(self.vae, z)

    def encode_images(self, images: Tensor) -> Tensor:
        """Images to the scaled means of their latents."""
        return autoencoder.encode_images(self.vae, images)

    def checkpoint_decoder(self, how: Callable[..., Any] | None = None) -> None:
        """Run the decoder's blocks again in the backward pass, by diffusers, in place of keeping what they computed; of
        an autoencoder that cannot nothing changes (`comat.models.fit.check_checkpointing` says so before).
        """
        if self.vae._supports_gradient_checkpointing:
            self.vae.enable_gradient_checkpointing(how)

    # Attention.

    @abstractmethod
    def attention_layers(self) -> list[str]:
        """All attention modules between image and text, in the order of the forward pass."""

    def map_layers(self) -> list[str]:
        """Those of them that attribute concentration looks at unless `attribute_layers` says others."""
        return second_half(self.attention_layers())

    def chosen_layers(self, patterns: Sequence[str] | None) -> list[str]:
        """The layers whose names match one of `patterns` (as of file names), or `map_layers` without any.

        Raises:
            UserError: if a pattern matches none.
        """
        if patterns is None:
            return self.map_layers()
        layers = self.attention_layers()
        for pattern in patterns:
            if not fnmatch.filter(layers, pattern):
                example = f"{layers[0]} to {layers[-1]}"
                raise UserError(f"attribute_layers: {pattern!r} matches none of the {len(layers)} layers ({example})")
        return [name for name in layers if any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)]

    @abstractmethod
    def layout(self, latent_size: Sequence[int]) -> Callable[[int, int], Layout]:
        """For latents of (h, w): numbers of queries and keys of a layer → its image rows and text columns."""

    # LoRA, as stock pipelines load it.

    def exported_lora(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """peft's names to those of the family's files."""
        return {f"{self.family.denoiser}.{name}": value for name, value in state.items()}

    def imported_lora(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The names of the family's files to peft's."""
        return {name.removeprefix(f"{self.family.denoiser}."): value for name, value in state.items()}


CLEAN = 1
"""The last timestep of sampling, of 1000: latents that a discriminator sees are clean."""


def second_half(layers: Sequence[str]) -> list[str]:
    """The later half of a transformer's layers, as the middle and decoder blocks are of a UNet."""
    return list(layers[len(layers) // 2 :])
