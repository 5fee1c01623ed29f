"""Warm-up images → a denoiser that is good at the training resolution, in diffusers layout; of no steps a note."""

from __future__ import annotations

from pathlib import Path

from comat.errors import first_line, main_guard
from comat.models.lock import pinned
from comat.params import Params, load
from comat.running.stage import options, publish


@main_guard
def main() -> None:
    args = options(__doc__, ["models", "warmup_images"], "warmup")
    params = pinned(load(args.params), args.models, "base_model", "vae")

    from comat.running.workdir import stage_directory

    with stage_directory("warmup", params.model_dump(), args.models, [args.warmup_images]) as work:
        if params.warmup.steps:
            _warm_up(params, args.warmup_images, work)
        else:
            from comat.diffusion.load import PASSED_THROUGH
            from comat.storage.tables import write_json

            write_json(work / "out" / PASSED_THROUGH, {"denoiser": "the base model's own"})
        publish(work / "out", args.out)


def _warm_up(params: Params, images: Path, work: Path) -> None:
    """Write `out/unet` or `out/transformer`; go on from the state in `work`."""
    import shutil

    import torch
    from safetensors import SafetensorError

    from comat.diffusion.backbones import load_base
    from comat.diffusion.backbones.autoencoder import vae_without_weights
    from comat.running.device import choose_device
    from comat.storage.tensor_store import TensorStore
    from comat.training.warmup import warm_up

    base = params.base_model, params.base_revision
    vae = vae_without_weights(*base, params.vae, params.vae_revision)
    backbone = load_base(*base, vae=vae, device=choose_device(params.device))
    store = TensorStore(images)
    latents = torch.stack([store[id]["latents"] for id in store.ids])
    warm_up(backbone, params.warmup, params.seed, latents, [store.caption(id) for id in store.ids], work)
    folder = work / "out" / backbone.family.denoiser
    shutil.rmtree(work / "out", ignore_errors=True)  # what a run that was killed while it wrote has left
    try:
        backbone.denoiser.save_pretrained(folder)
    except SafetensorError as error:  # what safetensors makes of a full disk
        raise OSError(f"{folder}: cannot write the denoiser: {first_line(error)}") from None


if __name__ == "__main__":
    main()
