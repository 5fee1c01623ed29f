"""Prompts → entities.parquet: nouns, attributes and their token positions; and report.json."""

from __future__ import annotations

from pathlib import Path

from comat.errors import main_guard
from comat.models.lock import TOKENIZERS, pinned
from comat.params import load
from comat.running.stage import options


@main_guard
def main() -> None:
    args = options(__doc__, ["models", "prompts"], "entities")
    params = pinned(load(args.params), args.models, "base_model", within=TOKENIZERS)

    from comat.entities.build import entity_rows
    from comat.entities.filter import filtered_nouns
    from comat.entities.parse import load_parser, parse_all
    from comat.storage.tables import ENTITIES, PROMPTS, read_table, write_json, write_table
    from comat.tokenizers import load_tokenizers

    section = params.entities
    filtered = filtered_nouns(Path(section.own_filter) if section.own_filter else None)
    prompts = read_table(args.prompts / "prompts.parquet", PROMPTS)
    tokenizers = load_tokenizers(params.base_model, params.base_revision)
    parser = load_parser(section.spacy_model)
    found = parse_all(parser, [row["text"] for row in prompts], section.batch_size, section.processes)
    parsed = ((row["id"], row["text"], entities) for row, entities in zip(prompts, found, strict=True))
    categories = {row["id"]: row["category"] for row in prompts}
    rows, report = entity_rows(parsed, len(prompts), filtered, tokenizers, categories, params.seed)
    write_table(args.out / "entities.parquet", rows, ENTITIES)
    write_json(args.out / "report.json", report)


if __name__ == "__main__":
    main()
