"""Prompts → the frozen original model's final latents: the discriminator's "real" (App. E)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from operator import itemgetter

from comat.errors import main_guard
from comat.models.lock import pinned
from comat.params import load
from comat.running.launch import launch_where_asked
from comat.running.stage import options, publish, say_fewer


@main_guard
def main() -> None:
    args = options(__doc__, ["models", "prompts", "prompt_embeddings", "warmup"], "reference_latents")
    params = pinned(load(args.params), args.models, "base_model", "vae")

    launch_where_asked("stages.reference_latents")

    from comat.diffusion.load import load_backbone
    from comat.diffusion.sampling import sample_latents
    from comat.randomness import python_random
    from comat.running.distributed import join
    from comat.running.shared_store import SharedStore
    from comat.storage.shard_progress import Row
    from comat.storage.tables import PROMPTS, read_table

    section, inputs = params.reference_latents, [args.prompts, args.prompt_embeddings, args.warmup]

    def compute(batches: Sequence[Sequence[dict]]) -> Iterator[list[Row]]:
        if not batches:
            return
        backbone = load_backbone(params, args.warmup, args.prompt_embeddings, latents_only=True)
        for part in batches:
            texts, keys = [row["text"] for row in part], [(row["id"], 0) for row in part]
            latents = sample_latents(backbone, params, texts, keys, "reference", params.resolution)
            yield [Row(row["id"], {"latents": z}, row["text"]) for row, z in zip(part, latents, strict=True)]

    with (
        join(params.device) as processes,
        processes.directory("reference_latents", params.model_dump(), args.models, inputs) as work,
    ):
        rows = [row for row in read_table(args.prompts / "prompts.parquet", PROMPTS) if row["split"] == "train"]
        python_random(params.seed, "reference prompts").shuffle(rows)  # so that a part of them is of every category
        if processes.main:
            say_fewer("reference_latents.count", section.count, len(rows), "training prompts")
        rows = rows[: section.count or len(rows)]
        store = SharedStore(processes, work, section.shard_size, rows, itemgetter("id"), section.batch_size)
        store.fill(compute, "reference latents")
        if processes.main:
            publish(work, args.out)


if __name__ == "__main__":
    main()
