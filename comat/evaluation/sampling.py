"""The samples to evaluate: held-out prompts x seeds, base and tuned from the same noise; and some attention maps."""

from __future__ import annotations

from pathlib import Path

from comat.diffusion.backbone import Backbone
from comat.diffusion.lora import in_turn
from comat.diffusion.tokenizers import words_of
from comat.errors import UserError
from comat.images import write_png
from comat.params import Params
from comat.sampling import attention_of, in_batches, sample_latents
from comat.store import ENTITIES, IMAGE_INDEX, PROMPTS, read_table, write_json, write_safetensors, write_table
from comat.training.trainer import load_backbone


def draw_samples(params: Params, prompts: Path, entities: Path, unet: Path, lora: Path, out: Path) -> None:
    """Write `images/{base,tuned}/<prompt>-<seed>.png`, `index.parquet`, `attention.safetensors` and `attention.json`.

    Images that are there already are left alone.

    Raises:
        UserError: if no prompt is held out.
    """
    rows = [row for row in read_table(prompts / "prompts.parquet", PROMPTS) if row["split"] == "test"]
    rows = rows[: params.samples.prompts or len(rows)]
    if not rows:
        raise UserError(f"{prompts}: no prompt of split 'test' to draw; add a source with a validation list")
    backbone = load_backbone(params, unet)
    index, maps = [], {}
    for model in in_turn(backbone.unet, lora):
        index += _draw(params, backbone, model, rows, out)
        for row in rows[: params.samples.attention_prompts]:
            key = (row["id"], 0)
            maps[f"{model}/{row['id']}"], _ = attention_of(backbone, params, row["text"], key, "sample")
    write_table(out / "index.parquet", index, IMAGE_INDEX)
    write_safetensors(out / "attention.safetensors", maps)
    write_json(out / "attention.json", _token_legend(backbone, rows[: params.samples.attention_prompts], entities))


def _draw(params: Params, backbone: Backbone, model: str, rows: list[dict], out: Path) -> list[dict]:
    wanted = [
        {
            "model": model,
            "prompt_id": row["id"],
            "text": row["text"],
            "source": row["source"],
            "category": row["category"],
            "seed": seed,
            "path": f"images/{model}/{row['id']}-{seed}.png",
        }
        for row in rows
        for seed in range(params.samples.seeds)
    ]
    todo = [entry for entry in wanted if not (out / entry["path"]).exists()]
    for part in in_batches(todo, params.samples.batch_size, f"samples of the {model} model"):
        keys = [(entry["prompt_id"], entry["seed"]) for entry in part]
        z = sample_latents(backbone, params, [e["text"] for e in part], keys, "sample", params.resolution)
        for entry, image in zip(part, backbone.decode(z), strict=True):
            write_png(out / entry["path"], image)
    return wanted


def _token_legend(backbone: Backbone, rows: list[dict], entities: Path) -> list[dict]:
    """For each prompt its tokens as words, and which of them belong to which entity."""
    found = read_table(entities / "entities.parquet", ENTITIES)
    legend = []
    for row in rows:
        tokens = words_of(backbone.tokenizers[0], row["text"])
        own = [e["tokens"][0] for e in found if e["prompt_id"] == row["id"] and e["kept"]]
        legend.append({"prompt_id": row["id"], "text": row["text"], "tokens": tokens, "entities": own})
    return legend
