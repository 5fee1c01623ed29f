"""The autoencoder: AutoencoderKL with an eightfold reduction, as SDXL's, for 64 and 128 px renders."""

from __future__ import annotations

from pathlib import Path

import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL

from comat.shapes.recipe.data import clean_examples, images, unit
from comat.shapes.recipe.fit import fit


def build() -> AutoencoderKL:
    """0.8 M parameters; 8 latent channels."""
    return AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        block_out_channels=(16, 32, 48, 64),
        layers_per_block=1,
        latent_channels=8,
        norm_num_groups=8,
        sample_size=64,
        mid_block_add_attention=False,
    )


def train(steps: int, work: Path, precision: str) -> AutoencoderKL:
    """L1 + L2 + a weak KL, on 64 px renders and 64 px crops of 128 px renders; the scaling factor is set to 1/std."""
    torch.manual_seed(0)
    model = build()
    small = images(clean_examples(6000, seed=1), 64)
    large = images(clean_examples(1500, seed=2), 128)

    def batch(generator: torch.Generator) -> torch.Tensor:
        rows = small[torch.randint(len(small), (24,), generator=generator)]
        y, x = torch.randint(0, 65, (2,), generator=generator).tolist()
        crops = large[torch.randint(len(large), (8,), generator=generator), :, y : y + 64, x : x + 64]
        return unit(torch.cat([rows, crops]))

    def loss(generator: torch.Generator) -> torch.Tensor:
        x = batch(generator)
        posterior = model.encode(x).latent_dist
        noise = torch.randn(posterior.mean.shape, generator=generator)
        y = model.decode(posterior.mean + posterior.std * noise).sample
        # Objects cover a tenth of the image: their pixels weigh five times the background's.
        weight = 1 + 4 * (x - x[:, :, :1, :1]).abs().amax(1, keepdim=True).clamp(max=1)
        return (weight * ((y - x).abs() + (y - x) ** 2)).mean() + 1e-5 * posterior.kl().mean()

    fit("autoencoder", model, loss, steps=steps, learning_rate=3e-3, work=work, precision=precision)
    with torch.no_grad():
        latents = torch.cat([model.encode(unit(rows)).latent_dist.mean for rows in small[:1000].split(100)])
    model.register_to_config(scaling_factor=1 / latents.std().item())
    return model
