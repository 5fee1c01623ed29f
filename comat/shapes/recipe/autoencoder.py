"""The autoencoder: AutoencoderKL with an eightfold reduction, as SDXL's, for 64 and 128 px renders."""

from __future__ import annotations

from pathlib import Path

import torch
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


def _reconstruction(y: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    """L1 + L2 between (B, 3, H, W) images; objects cover a tenth of the image, so they weigh five times as much."""
    weight = 1 + 4 * (x - x[:, :, :1, :1]).abs().amax(1, keepdim=True).clamp(max=1)
    return (weight * ((y - x).abs() + (y - x) ** 2)).mean()


def train(steps: int, work: Path, precision: str) -> AutoencoderKL:
    """Reconstruction and a weak KL, on 64 px renders and 64 px crops of 128 px renders; scaling factor = 1/std."""
    torch.manual_seed(0)
    model = build()
    small = images(clean_examples(6000, seed=1), 64)
    large = images(clean_examples(1500, seed=2), 128)

    def loss(generator: torch.Generator) -> torch.Tensor:
        rows = small[torch.randint(len(small), (24,), generator=generator)]
        y, x = torch.randint(0, 65, (2,), generator=generator).tolist()
        crops = large[torch.randint(len(large), (8,), generator=generator), :, y : y + 64, x : x + 64]
        pixels = unit(torch.cat([rows, crops]))
        posterior = model.encode(pixels).latent_dist
        latents = posterior.mean + posterior.std * torch.randn(posterior.mean.shape, generator=generator)
        return _reconstruction(model.decode(latents).sample, pixels) + 1e-5 * posterior.kl().mean()

    fit("autoencoder", model, loss, steps=steps, learning_rate=3e-3, work=work, precision=precision)
    with torch.no_grad():
        latents = torch.cat([model.encode(unit(rows)).latent_dist.mean for rows in small[:1000].split(100)])
    model.register_to_config(scaling_factor=1 / latents.std().item())
    return model


def sharpen(model: AutoencoderKL, steps: int, work: Path, precision: str) -> AutoencoderKL:
    """Train the decoder on, behind the frozen encoder, on slightly noisy latents, as those of a diffusion model are."""
    sets = []
    for examples, size in ((clean_examples(8000, seed=8), 64), (clean_examples(1500, seed=9), 128)):
        pixels = images(examples, size)
        with torch.no_grad():
            latents = torch.cat([model.encode(unit(rows)).latent_dist.mean for rows in pixels.split(50)])
        sets.append((pixels, latents))
    scale = 1 / model.config.scaling_factor
    decoder = torch.nn.ModuleList([model.post_quant_conv, model.decoder])

    def loss(generator: torch.Generator) -> torch.Tensor:
        native = bool(torch.rand((), generator=generator) < 0.2)
        pixels, latents = sets[native]
        rows = torch.randint(len(pixels), (8 if native else 32,), generator=generator)
        sigma = 0.1 * scale * torch.rand(len(rows), 1, 1, 1, generator=generator)
        z = latents[rows] + sigma * torch.randn(latents[rows].shape, generator=generator)
        return _reconstruction(model.decode(z).sample, unit(pixels[rows]))

    fit("decoder", decoder, loss, steps=steps, learning_rate=2e-3, work=work, precision=precision)
    return model
