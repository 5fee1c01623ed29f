"""Prompts → entities.parquet: nouns, attributes and their token positions; and report.json."""

from __future__ import annotations

from comat.errors import main_guard
from comat.models.lock import TOKENIZERS, pinned
from comat.params import load
from comat.running.stage import options


@main_guard
def main() -> None:
    args = options(__doc__, ["models", "prompts"], "entities")
    params = pinned(load(args.params), args.models, "base_model", within=TOKENIZERS)

    from comat.entities.build import find_entities
    from comat.storage.tables import ENTITIES, PROMPTS, read_table, write_json, write_table

    prompts = read_table(args.prompts / "prompts.parquet", PROMPTS)
    categories = {row["id"]: row["category"] for row in prompts}
    texts = [(row["id"], row["text"]) for row in prompts]
    rows, report = find_entities(params.entities, params, texts, categories, params.seed)
    write_table(args.out / "entities.parquet", rows, ENTITIES)
    write_json(args.out / "report.json", report)


if __name__ == "__main__":
    main()
