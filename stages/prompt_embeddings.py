"""Prompts and captions of images → what the text encoders say of them, where the parameters ask for it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from comat.errors import main_guard
from comat.models.lock import pinned
from comat.params import Params, load
from comat.running.launch import launch_where_asked
from comat.running.stage import options, publish

if TYPE_CHECKING:
    from comat.storage.shard_progress import Row

TOGETHER = 16
"""Prompts that a process takes at a time; they are encoded one after another."""


@main_guard
def main() -> None:
    args = options(__doc__, ["models", "prompts", "image_latents"], "prompt_embeddings")
    params = pinned(load(args.params), args.models, "base_model")

    if params.prompt_embeddings.store:
        launch_where_asked("stages.prompt_embeddings")

    from comat.diffusion.backbones import load_encoders
    from comat.diffusion.embeddings import NOT_STORED, as_tensors, embedding_id
    from comat.running.device import choose_device
    from comat.running.distributed import join
    from comat.running.shared_store import SharedStore
    from comat.storage.shard_progress import Row
    from comat.storage.tables import write_json

    stored = params.prompt_embeddings.store

    def compute(batches: Sequence[Sequence[str]]) -> Iterator[list[Row]]:
        if not batches:
            return
        device = choose_device(params.device)
        encode = load_encoders(params.base_model, params.base_revision, params.precision, device)
        for part in batches:
            yield [Row(embedding_id(text), as_tensors(encode([text])), text) for text in part]

    with join(params.device) as processes:
        texts = list_texts(params, args.prompts, args.image_latents) if stored else []
        values = params.model_dump() | {"texts": texts}  # of files of benchmarks among them
        with processes.directory("prompt_embeddings", values, args.models, []) as work:
            if stored:
                size = params.prompt_embeddings.shard_size
                SharedStore(processes, work, size, texts, embedding_id, TOGETHER).fill(compute, "prompt embeddings")
            elif processes.main:
                write_json(work / NOT_STORED, {"text_encoders": "are loaded where prompts are read"})
            if processes.main:
                publish(work, args.out)


def list_texts(params: Params, prompts: Path, image_latents: Path) -> list[str]:
    """Every text that `reference_latents`, `train` and the sampling stages encode, each once; the empty one first."""
    from comat.samples.prompt_files import benchmark_prompts
    from comat.storage.tables import PROMPTS, read_table
    from comat.storage.tensor_store import TensorStore

    rows = read_table(prompts / "prompts.parquet", PROMPTS)
    rows += benchmark_prompts(params.samples.benchmarks, params.seed)
    pictures = TensorStore(image_latents)
    captions = [pictures.caption(id) for id in pictures.ids] if params.image_batch else []
    watched = params.train.preview.prompts if params.train.preview.every else []
    return list(dict.fromkeys(["", *(row["text"] for row in rows), *captions, *watched]))


if __name__ == "__main__":
    main()
