"""CoMat: prompt-faithful fine-tuning of text-to-image diffusion models."""
