"""Prompts → the frozen original model's final latents: the discriminator's "real" (App. E)."""

from __future__ import annotations

from comat.errors import main_guard
from comat.models.lock import pinned
from comat.params import load
from comat.stage import options, publish


@main_guard
def main() -> None:
    args = options(__doc__, ["models", "prompts", "warmup"], "reference_latents")
    params = pinned(load(args.params), args.models, "base_model", "vae")

    from comat.diffusion.load import load_backbone
    from comat.randomness import python_random
    from comat.sampling import missing_batches, sample_latents
    from comat.store import PROMPTS, TensorStoreWriter, read_table
    from comat.workdir import stage_directory

    section = params.reference_latents
    rows = [row for row in read_table(args.prompts / "prompts.parquet", PROMPTS) if row["split"] == "train"]
    python_random(params.seed, "reference prompts").shuffle(rows)
    rows = rows[: section.count or len(rows)]
    with stage_directory("reference_latents", params, [args.prompts, args.warmup]) as work:
        writer = TensorStoreWriter(work, section.shard_size)
        backbone = load_backbone(params, args.warmup / "unet")
        for part in missing_batches(rows, writer, section.batch_size, "reference latents"):
            texts, keys = [row["text"] for row in part], [(row["id"], 0) for row in part]
            latents = sample_latents(backbone, params, texts, keys, "reference", params.resolution)
            for row, z in zip(part, latents, strict=True):
                writer.add(row["id"], {"latents": z}, row["text"])
        writer.close()
        publish(work, args.out)


if __name__ == "__main__":
    main()
