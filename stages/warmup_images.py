"""Prompts → images of the base model at its native resolution, as latents of the training resolution."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from operator import itemgetter

from comat.errors import main_guard
from comat.models.lock import pinned
from comat.params import load
from comat.running.launch import launch_where_asked
from comat.running.stage import options, publish, say_fewer

SHARD_SIZE = 1024
"""Latents per file: 64 MB at 512 px."""


@main_guard
def main() -> None:
    args = options(__doc__, ["models", "prompts", "prompt_embeddings"], "warmup_images")
    params = pinned(load(args.params), args.models, "base_model", "vae")

    launch_where_asked("stages.warmup_images")

    import torch.nn.functional as F

    from comat.diffusion.load import load_backbone
    from comat.diffusion.sampling import decoded, sample_latents
    from comat.randomness import python_random
    from comat.running.distributed import join
    from comat.running.shared_store import SharedStore
    from comat.storage.shard_progress import Row
    from comat.storage.tables import PROMPTS, read_table

    inputs = [args.prompts, args.prompt_embeddings]

    def compute(batches: Sequence[Sequence[dict]]) -> Iterator[list[Row]]:
        if not batches:
            return
        backbone = load_backbone(params, embeddings=args.prompt_embeddings)
        for part in batches:
            texts, keys = [row["text"] for row in part], [(row["id"], 0) for row in part]
            z = sample_latents(backbone, params, texts, keys, "warmup image", params.native_resolution)
            images = decoded(backbone, z).clamp(0, 1)
            small = F.interpolate(images, (params.resolution,) * 2, mode="bicubic", antialias=True).clamp(0, 1)
            encoded = zip(part, backbone.encode_images(small), strict=True)
            yield [Row(row["id"], {"latents": z}, row["text"]) for row, z in encoded]

    with (
        join(params.device) as processes,
        processes.directory("warmup_images", params.model_dump(), args.models, inputs) as work,
    ):
        rows = [row for row in read_table(args.prompts / "prompts.parquet", PROMPTS) if row["split"] == "train"]
        python_random(params.seed, "warmup prompts").shuffle(rows)  # so that a part of them is of every category
        if params.warmup.steps and processes.main:
            say_fewer("warmup_images.count", params.warmup_images.count, len(rows), "training prompts")
        rows = rows[: params.warmup_images.count] if params.warmup.steps else []
        store = SharedStore(processes, work, SHARD_SIZE, rows, itemgetter("id"), params.warmup_images.batch_size)
        store.fill(compute, "warm-up images")
        if processes.main:
            publish(work, args.out)


if __name__ == "__main__":
    main()
