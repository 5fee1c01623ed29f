"""The samples to evaluate: prompts x seeds, base and tuned from the same noise; and some attention maps."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from comat.diffusion.backbone import Backbone
from comat.diffusion.load import load_backbone
from comat.diffusion.lora import load_lora, merged
from comat.diffusion.tokenizers import words_of
from comat.errors import UserError
from comat.evaluation.prompt_files import benchmark_prompts
from comat.images import write_png
from comat.params import Params
from comat.sampling import attention_of, in_batches, sample_latents
from comat.store import (
    ENTITIES,
    IMAGE_INDEX,
    PROMPTS,
    read_legend,
    read_table,
    write_json,
    write_safetensors,
    write_table,
)


def draw_base(params: Params, prompts: Path, entities: Path, unet: Path, out: Path) -> None:
    """Write the base model's `images/<prompt>-<seed>.png`, `index.parquet`, `attention.safetensors`, `attention.json`.

    The prompts are the held-out ones, then those of the benchmarks' files. Batches that are there are left alone.

    Raises:
        UserError: if there is no prompt to draw.
    """
    held_out = [row for row in read_table(prompts / "prompts.parquet", PROMPTS) if row["split"] == "test"]
    held_out = held_out[: params.samples.prompts or len(held_out)]
    rows = held_out + benchmark_prompts(params.samples.benchmarks, params.seed)
    if not rows:
        raise UserError(
            f"{prompts}: no prompt of split 'test' to draw; add a source with a validation list, or samples.benchmarks"
        )
    backbone = load_backbone(params, unet)
    write_json(out / "attention.json", _legend(backbone, rows[: params.samples.attention_prompts], entities))
    _draw(params, backbone, "base", listed(rows, params.samples.seeds), out)
    _draw_attention(params, backbone, out, out)


def draw_tuned(params: Params, base: Path, unet: Path, lora: Path, out: Path) -> None:
    """Write what `draw_base` wrote to the folder `base`, by the tuned model: same prompts, same seeds, same noise."""
    backbone = load_backbone(params, unet)
    load_lora(backbone.unet, lora)
    with merged(backbone.unet):
        _draw(params, backbone, "tuned", read_table(base / "index.parquet", IMAGE_INDEX), out)
        _draw_attention(params, backbone, base, out)


def listed(rows: Sequence[dict], seeds: int) -> list[dict]:
    """Rows of `IMAGE_INDEX` for rows of `PROMPTS`, as the base draws them; `path` is relative to the index."""
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
        for seed in range(seeds)
    ]


def _draw(params: Params, backbone: Backbone, model: str, index: Sequence[dict], out: Path) -> None:
    for part in in_batches(index, params.samples.batch_size, f"samples of the {model} model"):
        # Whole batches: in another batch an image may differ in its last bits.
        if all((out / row["path"]).exists() for row in part):
            continue
        keys = [(row["prompt_id"], row["seed"]) for row in part]
        z = sample_latents(backbone, params, [row["text"] for row in part], keys, "sample", params.resolution)
        for row, image in zip(part, backbone.decode(z), strict=True):
            write_png(out / row["path"], image)
    write_table(out / "index.parquet", [{**row, "model": model} for row in index], IMAGE_INDEX)


def _draw_attention(params: Params, backbone: Backbone, base: Path, out: Path) -> None:
    """Write prompt → (L, h, w) for the prompts of the legend in `base`."""
    maps = {}
    for row in read_legend(base):
        maps[row["prompt_id"]], _ = attention_of(backbone, params, row["text"], (row["prompt_id"], 0), "sample")
    write_safetensors(out / "attention.safetensors", maps)


def _legend(backbone: Backbone, rows: Sequence[dict], entities: Path) -> list[dict]:
    """For each prompt its tokens as words, and which of them belong to which entity."""
    found = read_table(entities / "entities.parquet", ENTITIES)
    legend = []
    for row in rows:
        tokens = words_of(backbone.tokenizers[0], row["text"])
        own = [e["tokens"][0] for e in found if e["prompt_id"] == row["id"] and e["kept"]]
        legend.append({"prompt_id": row["id"], "text": row["text"], "tokens": tokens, "entities": own})
    return legend
