"""The warm-up (App. E): the denoiser learns the training resolution from the base model's own images, resized."""

from __future__ import annotations

import math
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from tqdm import tqdm

from comat.diffusion.backbones import Backbone, PromptEmbeddings
from comat.diffusion.lora import absorb_lora, add_lora
from comat.errors import UserError, saving, unbroken
from comat.params import WarmupParams
from comat.randomness import generator
from comat.training.checkpoint import below, moments, read_state, restore_moments, write_state

TEXTS = 128
"""Prompts that the text encoders are given at once. What they say waits on the host: T5's is 5 MB a prompt."""


def warmup_loss(
    backbone: Backbone, z0: Tensor, prompts: PromptEmbeddings, rng: torch.Generator, prompt_dropout: float
) -> Tensor:
    """Eq. 1 on scaled latents z0 (B, C, h, w); a share of the prompts is dropped for classifier-free guidance."""
    t = backbone.draw_times(len(z0), z0.shape[-2:], rng)
    eps = torch.randn(z0.shape, generator=rng)
    dropped = (torch.rand(len(z0), generator=rng) < prompt_dropout).to(z0.device)
    rows = torch.arange(len(z0), device=z0.device) + dropped * len(z0)
    seen = PromptEmbeddings.cat([prompts, backbone.null.repeat(len(z0))])[rows]
    t, eps = t.to(z0.device), eps.to(z0.device)
    noisy, target = backbone.training_target(z0, eps, t)
    return F.mse_loss(backbone.denoise(noisy, t, seen), target)


def warm_up(
    backbone: Backbone, section: WarmupParams, seed: int, latents: Tensor, prompts: list[str], work: Path
) -> None:
    """Fine-tune the denoiser for `warmup.steps` steps on latents (N, C, h, w); resumable in `work`.

    All weights learn, or LoRA of `warmup.lora_rank`, which is in the weights at the end.

    Raises:
        UserError: at a loss, a gradient or weights that are not finite.
        Interrupted: by SIGINT or SIGTERM; the state is saved.
    """
    state = work / "state.safetensors"
    denoiser = backbone.denoiser.train()
    if section.lora_rank:
        weights = add_lora(backbone, section.lora_rank, generator(seed, "warmup lora"))
    else:
        weights = list(denoiser.requires_grad_(True).parameters())
    optimizer = torch.optim.AdamW(weights, lr=section.learning_rate, weight_decay=section.weight_decay)
    start = done = _resumed(state, denoiser, optimizer) if state.exists() else 0
    chunks = tqdm([prompts[at : at + TEXTS] for at in range(0, len(prompts), TEXTS)], desc="text encoders")
    embeddings = [backbone.encode_prompts(chunk).to(torch.device("cpu")) for chunk in chunks]

    def save() -> None:
        tensors = {f"denoiser.{k}": v for k, v in denoiser.state_dict().items()}
        write_state(state, tensors | moments("adam", optimizer), {"step": done})

    with saving(save, lambda: f"step {done} of {section.steps}"):
        for step in tqdm(range(start, section.steps), initial=start, total=section.steps, desc="warm-up"):
            rng = generator(seed, "warmup", step)
            rows = torch.randint(len(latents), (section.batch_size,), generator=rng)
            optimizer.zero_grad(set_to_none=True)
            z0 = latents[rows].to(backbone.device)
            said = PromptEmbeddings.cat([embeddings[row // TEXTS][[row % TEXTS]] for row in rows.tolist()])
            loss = warmup_loss(backbone, z0, said.to(backbone.device), rng, section.prompt_dropout)
            loss.backward()
            norm = torch.nn.utils.clip_grad_norm_(weights, section.max_grad_norm)
            if not math.isfinite(loss.item()) or not math.isfinite(norm.item()):
                raise UserError(
                    f"warm-up: step {step}: loss {loss.item()} , gradient norm {norm.item()}: expected finite ones; "
                    f"lower warmup.learning_rate ({section.learning_rate:g})"
                )
            with unbroken():
                optimizer.step()
                done = step + 1
            if done % 25 == 0 and done < section.steps:
                save()
    if section.lora_rank:
        absorb_lora(backbone)
    broken = [name for name, weight in denoiser.named_parameters() if not torch.isfinite(weight).all()]
    if broken:
        raise UserError(
            f"warm-up: {len(broken)} weights of the denoiser are not finite after the last step, {broken[0]} first; "
            f"lower warmup.learning_rate ({section.learning_rate:g})"
        )
    denoiser.requires_grad_(False).eval()


def _resumed(state: Path, denoiser: nn.Module, optimizer: torch.optim.Optimizer) -> int:
    """Take up what was saved, all of which is let go then; returns how many steps were done."""
    saved, notes = read_state(state)
    denoiser.load_state_dict(below(saved, "denoiser"))
    restore_moments(optimizer, below(saved, "adam"))
    return int(notes["step"])
