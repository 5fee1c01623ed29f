"""Corpora → prompts.parquet (id, text, source, category, split), dropped.parquet with reasons, and report.json.

evaluation.parquet holds what nothing that trains may be equal to or near, captions of real images among it.
"""

from __future__ import annotations

from comat.errors import main_guard
from comat.models.lock import TOKENIZERS, pinned
from comat.params import load
from comat.running.stage import options


@main_guard
def main() -> None:
    args = options(__doc__, ["models"], "prompts")
    params = pinned(load(args.params), args.models, "base_model", within=TOKENIZERS)

    from comat.corpora.build import build_corpus, check_held_out
    from comat.storage.tables import DROPPED_PROMPTS, EVALUATION_PROMPTS, PROMPTS, write_json, write_table
    from comat.tokenizers import load_tokenizers

    tokenizers = load_tokenizers(params.base_model, params.base_revision)
    corpus = build_corpus(params.prompts, params.seed, tokenizers)
    check_held_out(corpus.report, params.samples.benchmarks)
    write_table(args.out / "prompts.parquet", corpus.rows, PROMPTS)
    write_table(args.out / "dropped.parquet", corpus.dropped, DROPPED_PROMPTS)
    write_table(args.out / "evaluation.parquet", corpus.evaluation, EVALUATION_PROMPTS)
    write_json(args.out / "report.json", corpus.report)


if __name__ == "__main__":
    main()
