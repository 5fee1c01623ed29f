"""Pictures while training goes on: fixed prompts from fixed noise, the base model's beside, in one growing page."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from jinja2 import Environment, PackageLoader, StrictUndefined
from PIL import Image
from transformers import PreTrainedTokenizerBase

from comat.diffusion.backbones import Backbone
from comat.diffusion.lora import merged
from comat.diffusion.sampling import decoded, sample_latents
from comat.errors import UserError
from comat.models.finite import NotFinite
from comat.params import PreviewParams, SamplingParams
from comat.storage.images import EXACT, read_rgb, to_bytes, webp
from comat.storage.tables import write_bytes
from comat.tokenizers import check_length

PAGE = "preview.html"
LONGEST = 384
"""Pixels of a picture's longer side."""


def check_prompts(section: PreviewParams, tokenizers: Sequence[PreTrainedTokenizerBase]) -> None:
    """See that the text encoders read the prompts to their ends.

    Raises:
        UserError: naming the first that they would not.
    """
    for number, prompt in enumerate(section.prompts if section.every else []):
        try:
            check_length(tokenizers, prompt)
        except UserError as error:
            raise UserError(f"train.preview.prompts, number {number + 1}: {error}") from None


class Preview:
    """Draws the prompts with the LoRA as it is; `folder` keeps each look's pictures, small, and is its whole state.

    The noise is the same in every look. Before the first iteration LoRA changes nothing: that look is the base model's.
    """

    def __init__(
        self, section: PreviewParams, sampling: SamplingParams, device_batch: int, backbone: Backbone, folder: Path
    ) -> None:
        self.section, self.sampling, self.device_batch = section, sampling, device_batch
        self.backbone, self.folder = backbone, folder

    def look(self, iteration: int) -> list[np.ndarray]:
        """What the LoRA draws of each prompt after `iteration` iterations, drawn once: (H, W, 3), uint8."""
        files = self._files(iteration)
        if not all(file.exists() for file in files):
            for file, image in zip(files, self._draw(), strict=True):
                write_bytes(file, webp(Image.fromarray(to_bytes(image)), LONGEST))
        return [read_rgb(file) for file in files]

    def forget_after(self, iteration: int) -> None:
        """Remove looks at what a resumed run has yet to come to."""
        for late in [at for at in self._looks() if at > iteration]:
            for file in self._files(late):
                file.unlink(missing_ok=True)

    def page(self, done: int, last: int) -> bytes:
        """The page of all looks so far, after `done` of `last` iterations."""
        looks = {at: self._uris(at) for at in self._looks()}
        return _page(self.section.prompts, looks, done, last, self.sampling.resolution <= EXACT)

    @torch.no_grad()
    def _draw(self) -> list[torch.Tensor]:
        """Images (3, H, W); black ones where the model draws nothing finite, which is not for this to judge."""
        prompts, px = self.section.prompts, self.sampling.resolution
        found: list[torch.Tensor] = []
        for at in range(0, len(prompts), self.device_batch):
            part = prompts[at : at + self.device_batch]
            keys = [(prompt, 0) for prompt in part]
            try:
                with merged(self.backbone.denoiser):
                    z = sample_latents(self.backbone, self.sampling, part, keys, "preview", px)
                found += decoded(self.backbone, z)
            except NotFinite:
                found += torch.zeros(len(part), 3, px, px)
        return found

    def _files(self, iteration: int) -> list[Path]:
        return [self.folder / f"{iteration:07d}-{n}.webp" for n in range(len(self.section.prompts))]

    def _looks(self) -> list[int]:
        found = {int(path.name.split("-")[0]) for path in self.folder.glob("*-*.webp")}
        return sorted(at for at in found if all(file.exists() for file in self._files(at)))

    def _uris(self, iteration: int) -> list[str]:
        head = "data:image/webp;base64,"
        return [head + base64.b64encode(file.read_bytes()).decode() for file in self._files(iteration)]


def empty_page() -> bytes:
    """The page of a run that draws none, so that a pipeline finds the file."""
    return _page([], {}, 0, 0, False)


def _page(prompts: Sequence[str], looks: dict[int, list[str]], done: int, last: int, tiny: bool) -> bytes:
    environment = Environment(
        loader=PackageLoader("comat.training"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    values = {"prompts": prompts, "looks": looks, "done": done, "last": last, "tiny": tiny}
    return environment.get_template(f"{PAGE}.j2").render(values).encode()
