"""The autoencoder: AutoencoderKL with a fourfold reduction, for 64 and 128 px renders.

SDXL's reduces eightfold; at 64 px an object would be two cells wide, and what a cell holds would depend on where in the
cell the object's edge falls: a small UNet learns that many times more slowly than shapes of five cells.
"""

from __future__ import annotations

from pathlib import Path

import torch
from diffusers import AutoencoderKL

from comat.shapes.recipe.data import clean_examples, images, unit
from comat.shapes.recipe.fit import fit


def build() -> AutoencoderKL:
    """0.6 M parameters; 4 latent channels, as SDXL's."""
    return AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        block_out_channels=(16, 32, 64),
        layers_per_block=1,
        latent_channels=4,
        norm_num_groups=8,
        sample_size=64,
        mid_block_add_attention=False,
    )


def _reconstruction(y: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    """L1 + L2 between (B, 3, H, W) images; objects cover a tenth of the image, so they weigh five times as much."""
    weight = 1 + 4 * (x - x[:, :, :1, :1]).abs().amax(1, keepdim=True).clamp(max=1)
    return (weight * ((y - x).abs() + (y - x) ** 2)).mean()


def train(steps: int, work: Path, precision: str) -> AutoencoderKL:
    """Reconstruction and a weak KL, on 64 px renders and 64 px crops of 128 px renders; standard latents."""
    torch.manual_seed(0)
    model = build()
    small = images(clean_examples(6000, seed=1), 64)
    large = images(clean_examples(1500, seed=2), 128)

    def loss(generator: torch.Generator) -> torch.Tensor:
        rows = small[torch.randint(len(small), (24,), generator=generator)]
        y, x = torch.randint(0, 65, (2,), generator=generator).tolist()
        crops = large[torch.randint(len(large), (8,), generator=generator), :, y : y + 64, x : x + 64]
        pixels = unit(torch.cat([rows, crops])).to(model.device)
        posterior = model.encode(pixels).latent_dist
        eps = torch.randn(posterior.mean.shape, generator=generator).to(model.device)
        latents = posterior.mean + posterior.std * eps
        return _reconstruction(model.decode(latents).sample, pixels) + 5e-7 * posterior.kl().mean()

    fit("autoencoder", model, loss, steps=steps, learning_rate=3e-3, work=work, precision=precision)
    with torch.no_grad():
        latents = torch.cat([model.encode(unit(rows)).latent_dist.mean for rows in small[:1000].split(100)])
    return standardise(model, latents)


@torch.no_grad()
def standardise(model: AutoencoderKL, latents: torch.Tensor) -> AutoencoderKL:
    """Give every channel of the latents (N, C, h, w) zero mean and unit variance, by the 1x1 convolutions on both sides
    of them: the model encodes and decodes as before, and its scaling factor is 1."""
    mean, std = latents.mean((0, 2, 3)), latents.std((0, 2, 3))
    assert model.quant_conv is not None and model.post_quant_conv is not None  # `build` leaves none out
    into, into_bias = model.quant_conv.parameters()
    out, out_bias = model.post_quant_conv.parameters()
    channels = len(mean)
    out_bias.add_(out.flatten(1) @ mean)
    out.mul_(std[None, :, None, None])
    into[:channels] /= std[:, None, None, None]
    into_bias[:channels] = (into_bias[:channels] - mean) / std
    into_bias[channels:] -= 2 * std.log()  # the second half is log variance
    model.register_to_config(scaling_factor=1.0)
    return model
