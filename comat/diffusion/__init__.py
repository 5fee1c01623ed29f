"""The diffusion model: the backbone, its sampling, LoRA and attention maps."""
