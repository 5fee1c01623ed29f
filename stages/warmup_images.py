"""Prompts → images of the base model at its native resolution, as latents of the training resolution."""

from __future__ import annotations

from comat.errors import main_guard
from comat.models.lock import pinned
from comat.params import load
from comat.stage import options, publish


@main_guard
def main() -> None:
    args = options(__doc__, ["models", "prompts"], "warmup_images")
    params = pinned(load(args.params), args.models, "base_model", "vae")

    import torch.nn.functional as F

    from comat.diffusion.backbone import Backbone, choose_device
    from comat.randomness import python_random
    from comat.sampling import missing_batches, sample_latents
    from comat.store import PROMPTS, TensorStoreWriter, read_table
    from comat.workdir import stage_directory

    rows = [row for row in read_table(args.prompts / "prompts.parquet", PROMPTS) if row["split"] == "train"]
    python_random(params.seed, "warmup prompts").shuffle(rows)
    rows = rows[: params.warmup_images.count] if params.warmup.steps else []
    with stage_directory("warmup_images", params, [args.prompts]) as work:
        writer = TensorStoreWriter(work, shard_size=256)
        backbone = any(row["id"] not in writer for row in rows) and Backbone.load(
            params.base_model,
            params.base_revision,
            vae=params.vae,
            vae_revision=params.vae_revision,
            precision=params.precision,
            device=choose_device(params.device),
        )
        for part in missing_batches(rows, writer, params.warmup_images.batch_size, "warm-up images"):
            texts, keys = [row["text"] for row in part], [(row["id"], 0) for row in part]
            z = sample_latents(backbone, params, texts, keys, "warmup image", params.native_resolution)
            images = backbone.decode(z).clamp(0, 1)
            small = F.interpolate(images, (params.resolution,) * 2, mode="bicubic", antialias=True).clamp(0, 1)
            for row, latents in zip(part, backbone.encode_images(small), strict=True):
                writer.add(row["id"], {"latents": latents}, row["text"])
        writer.close()
        publish(work, args.out)


if __name__ == "__main__":
    main()
