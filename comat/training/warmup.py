"""The warm-up (App. E): the UNet learns the training resolution from the base model's own images, resized."""

from __future__ import annotations

import math
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor
from tqdm import tqdm

from comat.diffusion.backbone import Backbone, PromptEmbeddings
from comat.diffusion.lora import absorb_lora, add_lora
from comat.diffusion.schedulers import make_scheduler
from comat.errors import Interrupted, UserError, unbroken
from comat.params import WarmupParams
from comat.randomness import generator
from comat.training.checkpoint import read_state, write_state


def denoising_loss(
    backbone: Backbone, z0: Tensor, prompts: PromptEmbeddings, rng: torch.Generator, prompt_dropout: float
) -> Tensor:
    """Eq. 1 on scaled latents z0 (B, C, h, w); a share of the prompts is dropped for classifier-free guidance."""
    scheduler = make_scheduler("ddpm", backbone.scheduler_config, 1)
    t = torch.randint(scheduler.config["num_train_timesteps"], (len(z0),), generator=rng)
    eps = torch.randn(z0.shape, generator=rng)
    dropped = (torch.rand(len(z0), generator=rng) < prompt_dropout).to(z0.device)
    rows = torch.arange(len(z0), device=z0.device) + dropped * len(z0)
    seen = PromptEmbeddings.cat([prompts, backbone.null.repeat(len(z0))])[rows]
    t, eps = t.to(z0.device), eps.to(z0.device)
    prediction = backbone.denoise(scheduler.add_noise(z0, eps, t), t, seen)
    kind = scheduler.config["prediction_type"]
    # What the model predicts: the noise, the velocity, or (prediction_type `sample`) the image itself.
    target = scheduler.get_velocity(z0, eps, t) if kind == "v_prediction" else {"epsilon": eps, "sample": z0}[kind]
    return F.mse_loss(prediction, target)


def warm_up(
    backbone: Backbone, section: WarmupParams, seed: int, latents: Tensor, prompts: list[str], work: Path
) -> None:
    """Fine-tune the UNet for `warmup.steps` steps on latents (N, C, h, w); resumable in `work`.

    All weights learn, or LoRA of `warmup.lora_rank`, which is in the weights at the end.

    Raises:
        UserError: at a loss, a gradient or weights that are not finite.
        Interrupted: by SIGINT or SIGTERM; the state is saved.
    """
    state = work / "state.safetensors"
    unet = backbone.unet.train()
    if section.lora_rank:
        weights = add_lora(unet, section.lora_rank, generator(seed, "warmup lora"))
    else:
        weights = list(unet.requires_grad_(True).parameters())
    optimizer = torch.optim.AdamW(weights, lr=section.learning_rate, weight_decay=section.weight_decay)
    start = 0
    if state.exists():
        saved, notes = read_state(state)
        start = notes["step"]
        unet.load_state_dict({k[5:]: v for k, v in saved.items() if k.startswith("unet.")})
        moments: dict[int, dict[str, Tensor]] = {}
        for name, value in saved.items():
            if name.startswith("adam."):
                _, index, key = name.split(".")
                moments.setdefault(int(index), {})[key] = value
        optimizer.load_state_dict({"state": moments, "param_groups": optimizer.state_dict()["param_groups"]})
    chunks = [prompts[at : at + 128] for at in range(0, len(prompts), 128)]
    embeddings = PromptEmbeddings.cat([backbone.encode_prompts(chunk) for chunk in chunks])
    done = start

    def save() -> None:
        tensors = {f"unet.{k}": v for k, v in unet.state_dict().items()}
        moments = optimizer.state_dict()["state"]
        tensors |= {f"adam.{i}.{key}": value for i, entry in moments.items() for key, value in entry.items()}
        write_state(state, tensors, {"step": done})

    try:
        for step in tqdm(range(start, section.steps), initial=start, total=section.steps, desc="warm-up"):
            rng = generator(seed, "warmup", step)
            rows = torch.randint(len(latents), (section.batch_size,), generator=rng)
            optimizer.zero_grad(set_to_none=True)
            z0 = latents[rows].to(backbone.device)
            loss = denoising_loss(backbone, z0, embeddings[rows], rng, section.prompt_dropout)
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
    except KeyboardInterrupt:
        save()
        raise Interrupted(f"interrupted at step {done} of {section.steps}; `dvc repro` goes on") from None
    if section.lora_rank:
        absorb_lora(unet)
    broken = [name for name, weight in unet.named_parameters() if not torch.isfinite(weight).all()]
    if broken:
        raise UserError(
            f"warm-up: {len(broken)} weights of the UNet are not finite after the last step, {broken[0]} first; lower "
            f"warmup.learning_rate ({section.learning_rate:g})"
        )
    unet.requires_grad_(False).eval()
