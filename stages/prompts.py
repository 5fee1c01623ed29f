"""Corpora → prompts.parquet (id, text, source, category, split) and report.json."""

from __future__ import annotations

from comat.errors import main_guard
from comat.params import load
from comat.stage import options


@main_guard
def main() -> None:
    args = options(__doc__, [], "prompts")
    params = load(args.params)

    from comat.corpora.build import build_corpus
    from comat.store import PROMPTS, write_json, write_table

    rows, report = build_corpus(params.prompts, params.seed)
    write_table(args.out / "prompts.parquet", rows, PROMPTS)
    write_json(args.out / "report.json", report)


if __name__ == "__main__":
    main()
