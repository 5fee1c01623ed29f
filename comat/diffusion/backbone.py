"""The text-to-image model behind one interface: the one place where SD1.5 and SDXL differ."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from diffusers import AutoencoderKL, EulerDiscreteScheduler, UNet2DConditionModel
from diffusers.models.unets.unet_2d_condition import UNet2DConditionOutput
from torch import Tensor
from transformers import CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

from comat.diffusion.finite import finite
from comat.errors import UserError
from comat.models.loading import INDEX, M, load_model, loaded, pipeline_index
from comat.running.device import DTYPES

TextEncoder = CLIPTextModel | CLIPTextModelWithProjection


@dataclass(frozen=True)
class PromptEmbeddings:
    """Encoded prompts: `tokens` (B, L, D), and SDXL's `pooled` (B, P)."""

    tokens: Tensor
    pooled: Tensor | None = None

    def __len__(self) -> int:
        return len(self.tokens)

    def __getitem__(self, rows: slice | Tensor) -> PromptEmbeddings:
        return PromptEmbeddings(self.tokens[rows], None if self.pooled is None else self.pooled[rows])

    def repeat(self, count: int) -> PromptEmbeddings:
        """One prompt, `count` times."""
        pooled = None if self.pooled is None else self.pooled.expand(count, -1)
        return PromptEmbeddings(self.tokens.expand(count, -1, -1), pooled)

    @staticmethod
    def cat(parts: Sequence[PromptEmbeddings]) -> PromptEmbeddings:
        pooled = [part.pooled for part in parts if part.pooled is not None]
        return PromptEmbeddings(torch.cat([part.tokens for part in parts]), torch.cat(pooled) if pooled else None)


def load_vae(
    model: str,
    revision: str | None,
    vae: str | None,
    vae_revision: str | None,
    precision: str,
    device: torch.device | str,
) -> AutoencoderKL:
    """The autoencoder of a model alone, or another in its place: a hub id or a folder in hub layout.

    Raises:
        UserError: if it is missing or of another architecture.
    """
    where, folder = ((vae, vae_revision), "") if vae else ((model, revision), "vae")
    found = load_model(AutoencoderKL, *where, part="vae", subfolder=folder, dtype=DTYPES[precision], device=device)

    @torch.no_grad()
    def tried() -> AutoencoderKL:
        # Of a configuration whose parts do not fit each other all weights may be there.
        side = 2 ** len(found.config["block_out_channels"])
        found.decode(encode_images(found, torch.full((1, 3, side, side), 0.5)).to(found.device, found.dtype))
        return found

    return loaded(where[0], "vae (tried on a grey image)", tried)


def check_encoders(model: str, unet: UNet2DConditionModel, index: Mapping[str, object]) -> None:
    """See that the text encoders that `index` lists give what the UNet reads.

    Raises:
        UserError: if the UNet is of SDXL's kind, but the encoder of pooled embeddings is missing.
    """
    if unet.config["addition_embed_type"] == "text_time" and not index.get("text_encoder_2"):
        raise UserError(
            f"model {model!r}: its UNet reads pooled embeddings, as SDXL's does: expected a text_encoder_2 in {INDEX}, "
            "found none; name a whole SDXL model"
        )


@torch.no_grad()
def encode_images(vae: AutoencoderKL, images: Tensor) -> Tensor:
    """Images (B, 3, H, W) in [0, 1] to the scaled means of their latents."""
    mean = vae.encode((images * 2 - 1).to(vae.device, vae.dtype)).latent_dist.mean
    latents = (mean.float() - (vae.config["shift_factor"] or 0.0)) * vae.config["scaling_factor"]
    return finite(latents, "the autoencoder's encoder", vae.dtype)


class Backbone:
    """A frozen Stable Diffusion model. Latents are scaled; images are (B, 3, H, W) in [0, 1]."""

    def __init__(
        self,
        unet: UNet2DConditionModel,
        vae: AutoencoderKL,
        text_encoders: Sequence[TextEncoder],
        tokenizers: Sequence[CLIPTokenizer],
        scheduler_config: dict,
        zero_null: bool,
    ) -> None:
        self.unet, self.vae = unet, vae
        self._sampler: Callable[..., UNet2DConditionOutput] = unet
        self.text_encoders, self.tokenizers = list(text_encoders), list(tokenizers)
        self.scheduler_config = scheduler_config
        self.is_xl = unet.config["addition_embed_type"] == "text_time"
        self.vae_scale = 2 ** (len(vae.config["block_out_channels"]) - 1)
        self._time_ids: dict[tuple[int, int], Tensor] = {}
        for module in (unet, vae, *text_encoders):
            module.requires_grad_(False).eval()
        null = self.encode_prompts([""])
        if zero_null and null.pooled is not None:  # as the stock pipeline does where no negative prompt is given
            null = PromptEmbeddings(torch.zeros_like(null.tokens), torch.zeros_like(null.pooled))
        self.null = null

    @staticmethod
    def load(
        model: str,
        revision: str | None = None,
        *,
        unet: str | None = None,
        vae: str | AutoencoderKL | None = None,
        vae_revision: str | None = None,
        precision: str = "fp32",
        device: torch.device | str = "cpu",
    ) -> Backbone:
        """Load from a hub id or a folder in hub layout; `unet` and `vae` (or a loaded one) replace the own.

        Raises:
            UserError: naming the part that is missing or of another architecture.
        """
        index = pipeline_index(model, revision)

        def part(kind: type[M], name: str, other: str | None = None) -> M:
            where = (other, None) if other else (model, revision)
            folder = "" if other else name
            return load_model(kind, *where, part=name, subfolder=folder, dtype=DTYPES[precision], device=device)

        def tokenizer(name: str) -> CLIPTokenizer:
            commit = revision or "main"
            return loaded(model, name, lambda: CLIPTokenizer.from_pretrained(model, subfolder=name, revision=commit))

        encoders: list[TextEncoder] = [part(CLIPTextModel, "text_encoder")]
        tokenizers = [tokenizer("tokenizer")]
        if index.get("text_encoder_2"):
            encoders.append(part(CLIPTextModelWithProjection, "text_encoder_2"))
            tokenizers.append(tokenizer("tokenizer_2"))
        where = {"subfolder": "scheduler", "revision": revision}
        schedule = loaded(model, "scheduler", lambda: EulerDiscreteScheduler.load_config(model, **where))
        denoiser = part(UNet2DConditionModel, "unet", unet)
        check_encoders(model, denoiser, index)
        if vae is None or isinstance(vae, str):
            vae = load_vae(model, revision, vae, vae_revision, precision, device)
        autoencoder = vae

        def build() -> Backbone:
            return Backbone(
                denoiser,
                autoencoder,
                encoders,
                tokenizers,
                dict(schedule),
                bool(index.get("force_zeros_for_empty_prompt", False)),
            )

        return loaded(model, "its parts, which have to fit each other", build)

    @property
    def device(self) -> torch.device:
        return self.unet.device

    @property
    def dtype(self) -> torch.dtype:
        return self.vae.dtype

    def latent_shape(self, resolution: int) -> tuple[int, int, int]:
        """(C, h, w) of an image of `resolution` pixels."""
        side = resolution // self.vae_scale
        return (self.unet.config["in_channels"], side, side)

    @torch.no_grad()
    def encode_prompts(self, prompts: Sequence[str]) -> PromptEmbeddings:
        """Encode prompts, cut and padded to the tokenizers' length."""
        hidden, pooled = [], None
        for tokenizer, encoder in zip(self.tokenizers, self.text_encoders, strict=True):
            encoded = tokenizer(list(prompts), padding="max_length", truncation=True, return_tensors="pt")
            out = encoder(encoded.input_ids.to(encoder.device), output_hidden_states=self.is_xl)
            hidden.append(out.hidden_states[-2] if self.is_xl else out.last_hidden_state)
            pooled = out.text_embeds if self.is_xl and hasattr(out, "text_embeds") else None
        return PromptEmbeddings(torch.cat(hidden, -1), pooled)

    def compile(self) -> None:
        """From now on sampling (`guided` with `sampling`) goes through `torch.compile`; nothing else does.

        The first batch of each shape waits for the compiler, minutes for a large UNet. Results differ by rounding.

        Raises:
            UserError: where there is no compiler to turn its code into a program.
        """
        if self.device.type == "cpu" and not shutil.which(os.environ.get("CXX", "g++")):
            raise UserError("compile: true needs a C++ compiler on a CPU, found none; install g++, or set it to false")
        self._sampler = torch.compile(self.unet)

    def denoise(self, z: Tensor, t: Tensor, prompts: PromptEmbeddings, *, sampling: bool = False) -> Tensor:
        """What the UNet says of z (B, C, h, w), already scaled by the scheduler, at timestep t: (B, C, h, w)."""
        added = None
        if self.is_xl:
            added = {"text_embeds": prompts.pooled, "time_ids": self._sizes(z).expand(len(z), 6)}
        unet = self._sampler if sampling else self.unet
        return unet(z.to(prompts.tokens.dtype), t, prompts.tokens, added_cond_kwargs=added).sample.float()

    def _sizes(self, z: Tensor) -> Tensor:
        """SDXL's micro-conditioning of uncropped latents (B, C, h, w): (6,), in px; one copy a size."""
        height, width = (side * self.vae_scale for side in z.shape[-2:])
        if (height, width) not in self._time_ids:
            sizes = torch.tensor([height, width, 0, 0, height, width], dtype=self.text_encoders[-1].dtype)
            self._time_ids[height, width] = sizes.to(z.device)
        return self._time_ids[height, width]

    def guided(
        self, z: Tensor, t: Tensor, prompts: PromptEmbeddings, guidance_scale: float, *, sampling: bool = False
    ) -> Tensor:
        """Classifier-free guidance in one call, unconditional half first; `sampling` without gradients or maps."""
        both = PromptEmbeddings.cat([self.null.repeat(len(z)), prompts])
        unconditional, conditional = self.denoise(torch.cat([z, z]), t, both, sampling=sampling).chunk(2)
        return unconditional + guidance_scale * (conditional - unconditional)

    def decode(self, z: Tensor) -> Tensor:
        """Latents to images, not clamped."""
        scaled = z.to(self.dtype) / self.vae.config["scaling_factor"] + (self.vae.config["shift_factor"] or 0.0)
        return self.vae.decode(scaled).sample.float() / 2 + 0.5

    def encode_images(self, images: Tensor) -> Tensor:
        """Images to the scaled means of their latents."""
        return encode_images(self.vae, images)

    def map_layers(self) -> list[str]:
        """The cross-attention layers of the middle and decoder blocks (App. E), in the order of the forward pass."""
        names = [name for name, _ in self.unet.named_modules() if name.endswith(".attn2")]
        return [n for n in names if n.startswith("mid_block")] + [n for n in names if n.startswith("up_blocks")]
