"""Captions of real images → entities.parquet and report.json as of prompts, where attribute_images asks for them."""

from __future__ import annotations

from comat.errors import main_guard
from comat.models.lock import TOKENIZERS, pinned
from comat.params import load
from comat.running.stage import options


@main_guard
def main() -> None:
    args = options(__doc__, ["models", "image_latents"], "caption_entities")
    params = pinned(load(args.params), args.models, "base_model", within=TOKENIZERS)

    from comat.storage.tables import ENTITIES, write_json, write_table

    rows: list[dict] = []
    report: dict[str, object] = {"captions": "are not read: attribute_images is generated"}
    if params.attribute_images == "real":
        from comat.entities.build import find_entities
        from comat.storage.tensor_store import TensorStore

        store = TensorStore(args.image_latents)
        captions = [(id, store.caption(id)) for id in store.ids]
        rows, report = find_entities(params.entities, params, captions, {}, params.seed)
    write_table(args.out / "entities.parquet", rows, ENTITIES)
    write_json(args.out / "report.json", report)


if __name__ == "__main__":
    main()
