"""Samples → metrics.json, per-image scores, per-category table, grids and attention overlays."""

from __future__ import annotations

from comat.errors import main_guard
from comat.models.lock import pinned
from comat.params import load
from comat.stage import options


@main_guard
def main() -> None:
    args = options(__doc__, ["models", "samples"], "evaluate")
    params = pinned(load(args.params), args.models, "feature_model")

    from comat.evaluation.run import evaluate
    from comat.reporting.pictures import draw_pictures
    from comat.reporting.table import result_table

    metrics = evaluate(params, args.samples, args.out)
    draw_pictures(params, args.samples, args.out)
    print(result_table(metrics))


if __name__ == "__main__":
    main()
