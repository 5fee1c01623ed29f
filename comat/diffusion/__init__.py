"""The diffusion model: the backbone, its sampling, replay of the recorded steps, LoRA and cross-attention maps."""
