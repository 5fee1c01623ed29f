"""Prompts → entities.parquet: nouns, attributes and their token positions; and report.json."""

from __future__ import annotations

from comat.errors import main_guard
from comat.models.lock import pinned
from comat.params import load
from comat.stage import options


@main_guard
def main() -> None:
    args = options(__doc__, ["models", "prompts"], "entities")
    params = pinned(load(args.params), args.models, "base_model")

    from comat.diffusion.tokenizers import load_tokenizers
    from comat.entities.build import entity_rows
    from comat.store import ENTITIES, PROMPTS, read_table, write_json, write_table

    prompts = [(row["id"], row["text"]) for row in read_table(args.prompts / "prompts.parquet", PROMPTS)]
    tokenizers = load_tokenizers(params.base_model, params.base_revision)
    section = params.entities
    rows, report = entity_rows(prompts, section.spacy_model, section.batch_size, tokenizers)
    write_table(args.out / "entities.parquet", rows, ENTITIES)
    write_json(args.out / "report.json", report)


if __name__ == "__main__":
    main()
