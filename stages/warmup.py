"""Warm-up images → a denoiser that is good at the training resolution, in diffusers layout."""

from __future__ import annotations

from comat.errors import first_line, main_guard
from comat.models.lock import pinned
from comat.params import load
from comat.running.stage import options, publish


@main_guard
def main() -> None:
    args = options(__doc__, ["models", "warmup_images"], "warmup")
    params = pinned(load(args.params), args.models, "base_model", "vae")

    import torch
    from safetensors import SafetensorError

    from comat.diffusion.backbones import load_base
    from comat.running.device import choose_device
    from comat.running.workdir import stage_directory
    from comat.storage.tensor_store import TensorStore
    from comat.training.warmup import warm_up

    backbone = load_base(
        params.base_model,
        params.base_revision,
        vae=params.vae,
        vae_revision=params.vae_revision,
        device=choose_device(params.device),
    )
    with stage_directory("warmup", params.model_dump(), args.models, [args.warmup_images]) as work:
        if params.warmup.steps:
            store = TensorStore(args.warmup_images)
            latents = torch.stack([store[id]["latents"] for id in store.ids])
            captions = [store.caption(id) for id in store.ids]
            warm_up(backbone, params.warmup, params.seed, latents, captions, work)
        folder = work / "out" / backbone.family.denoiser
        try:
            backbone.denoiser.save_pretrained(folder)
        except SafetensorError as error:  # what safetensors makes of a full disk
            raise OSError(f"{folder}: cannot write the denoiser: {first_line(error)}") from None
        publish(work / "out", args.out)


if __name__ == "__main__":
    main()
