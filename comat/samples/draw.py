"""The samples to evaluate: prompts x seeds, base and tuned from the same noise; and some attention maps."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from PIL import Image
from tqdm import tqdm

from comat.diffusion.backbones import Backbone
from comat.diffusion.load import load_backbone
from comat.diffusion.lora import load_lora, merged
from comat.diffusion.sampling import attention_of, decoded, sample_latents
from comat.errors import UserError
from comat.params import DrawingParams, SamplesParams, SamplingParams
from comat.randomness import python_random, stratified
from comat.running.distributed import ALONE, Processes
from comat.samples.prompt_files import benchmark_prompts
from comat.storage.images import png, to_bytes
from comat.storage.tables import (
    ENTITIES,
    IMAGE_INDEX,
    PROMPTS,
    Legend,
    read_legend,
    read_table,
    write_bytes,
    write_json,
    write_safetensors,
    write_table,
)


def draw_base(
    drawing: DrawingParams,
    section: SamplesParams,
    prompts: Path,
    entities: Path,
    warmup: Path,
    out: Path,
    processes: Processes = ALONE,
    *,
    embeddings: Path | None = None,
) -> None:
    """Write the base model's `images/<prompt>-<seed>.png`, `index.parquet`, `attention.safetensors`, `attention.json`.

    The prompts are the held-out ones, or as many as the section draws of them, then those of the benchmarks' files.
    Batches that are there are left alone.

    Raises:
        UserError: if there is no prompt to draw.
    """
    held_out = [row for row in read_table(prompts / "prompts.parquet", PROMPTS) if row["split"] == "test"]
    rows = drawn_of(held_out, section.prompts, drawing.seed)
    rows += benchmark_prompts(section.benchmarks, drawing.seed)
    if not rows:
        raise UserError(
            f"{prompts}: no prompt of split 'test' to draw; add a source with a validation list, or samples.benchmarks"
        )
    backbone = load_backbone(drawing, warmup, embeddings)
    shown = _drawn(rows, section.attention_prompts, drawing.seed, "attention prompts")
    legend = _legend(backbone, shown, entities)
    if processes.main:
        write_json(out / "attention.json", legend)
    _draw(drawing, backbone, "base", listed(rows, section.seeds_of), section.batch_size, out, processes)
    _draw_attention(drawing, backbone, legend, out, processes)


def drawn_of(held_out: Sequence[dict], count: int, seed: int) -> list[dict]:
    """The held-out prompts that are drawn: `count` of them, 0 for all."""
    return _drawn(held_out, count or len(held_out), seed, "sampled prompts")


def _drawn(rows: Sequence[dict], count: int, seed: int, purpose: str) -> list[dict]:
    return stratified(rows, count, lambda row: row["category"], python_random(seed, purpose))


def draw_tuned(
    drawing: DrawingParams,
    batch_size: int,
    base: Path,
    warmup: Path,
    lora: Path,
    out: Path,
    processes: Processes = ALONE,
    *,
    embeddings: Path | None = None,
) -> None:
    """Write what `draw_base` wrote to the folder `base`, by the tuned model: same prompts, same seeds, same noise."""
    backbone = load_backbone(drawing, warmup, embeddings)
    index = read_table(base / "index.parquet", IMAGE_INDEX)
    load_lora(backbone, lora)
    with merged(backbone.denoiser):
        _draw(drawing, backbone, "tuned", index, batch_size, out, processes)
        _draw_attention(drawing, backbone, read_legend(base), out, processes)


def listed(rows: Sequence[dict], seeds: Callable[[str], int]) -> list[dict]:
    """Rows of `IMAGE_INDEX` for rows of `PROMPTS`, as the base draws them; `path` is relative to the index.

    seeds: from the source of a prompt to how many images are drawn of it.
    """
    return [
        {
            "model": "base",
            "prompt_id": row["id"],
            "text": row["text"],
            "source": row["source"],
            "category": row["category"],
            "seed": seed,
            "path": f"images/{row['id']}-{seed}.png",
        }
        for row in rows
        for seed in range(seeds(row["source"]))
    ]


def undrawn(index: Sequence[dict], folder: Path) -> list[dict]:
    """The rows whose images are not there yet."""
    return [row for row in index if not (folder / row["path"]).exists()]


def _draw(
    sampling: SamplingParams,
    backbone: Backbone,
    model: str,
    index: Sequence[dict],
    batch_size: int,
    out: Path,
    processes: Processes,
) -> None:
    batches = [index[at : at + batch_size] for at in range(0, len(index), batch_size)]
    # Whole batches, wherever a run was interrupted: an image's rounding may depend on those that it is drawn with.
    todo = processes.from_main(lambda: [batch for batch in batches if undrawn(batch, out)])
    results = processes.in_order(_pictures(sampling, backbone, processes.share(todo)), len(todo))
    title = f"samples of the {model} model"
    for part, images in zip(tqdm(todo, desc=title, disable=not processes.main), results, strict=False):
        for row, image in zip(part, images, strict=True):
            write_bytes(out / row["path"], image)
    if processes.main:
        write_table(out / "index.parquet", [{**row, "model": model} for row in index], IMAGE_INDEX)


def _pictures(sampling: SamplingParams, backbone: Backbone, batches: Sequence[Sequence[dict]]) -> Iterator[list[bytes]]:
    """The PNG files of each batch."""
    for part in batches:
        keys = [(row["prompt_id"], row["seed"]) for row in part]
        texts = [row["text"] for row in part]
        z = sample_latents(backbone, sampling, texts, keys, "sample", sampling.resolution)
        yield [png(Image.fromarray(to_bytes(image))) for image in decoded(backbone, z)]


def _draw_attention(
    sampling: SamplingParams, backbone: Backbone, legend: Sequence[Legend], out: Path, processes: Processes
) -> None:
    """Write prompt → (L, h, w) for the prompts of the legend."""
    keys = [(row["text"], (row["prompt_id"], 0)) for row in legend]
    own = (attention_of(backbone, sampling, text, key, "sample")[0] for text, key in processes.share(keys))
    bar = tqdm(keys, desc="attention maps", disable=not processes.main)
    maps = {key[0]: found for (_, key), found in zip(bar, processes.in_order(own, len(keys)), strict=False)}
    if processes.main:
        write_safetensors(out / "attention.safetensors", maps)


def _legend(backbone: Backbone, rows: Sequence[dict], entities: Path) -> list[Legend]:
    """For each prompt its tokens as words, and which of them belong to which entity."""
    found = read_table(entities / "entities.parquet", ENTITIES)
    legend: list[Legend] = []
    for row in rows:
        tokens = backbone.words(row["text"])
        own = [list(backbone.columns(e["tokens"])) for e in found if e["prompt_id"] == row["id"] and e["kept"]]
        legend.append({"prompt_id": row["id"], "text": row["text"], "tokens": tokens, "entities": own})
    return legend
