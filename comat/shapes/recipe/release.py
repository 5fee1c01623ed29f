"""`python -m comat.shapes.recipe.release`: put trained models that keep the promises where git tracks them."""

from __future__ import annotations

import argparse
from pathlib import Path

from comat.errors import UserError, main_guard
from comat.running.stage import publish
from comat.shapes.recipe.promises import broken
from comat.storage.json_files import read_json

RELEASED = ("base", "captioner", "features", "segmenter")
MOST_MEGABYTES = 20


@main_guard
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trained", type=Path, required=True)
    parser.add_argument("--measurements", type=Path, required=True)
    parser.add_argument("--models", type=Path, required=True)
    options = parser.parse_args()
    remedy = "measure again (python -m comat.shapes.recipe.measure)"
    lines = broken(read_json(options.measurements, dict[str, object], "measurements of the world", remedy))
    if lines:
        raise UserError(
            f"{options.measurements}: {'; '.join(lines)}; nothing was released: change the recipe "
            "(data/shapes/recipe/params.yaml, comat/shapes/recipe) and train again"
        )
    folders = [options.trained / name for name in RELEASED]
    size = sum(file.stat().st_size for folder in folders for file in folder.rglob("*")) / 1e6
    if size > MOST_MEGABYTES:
        raise UserError(
            f"{options.trained}: the models take {size:.1f} MB, git may track {MOST_MEGABYTES} MB; make one smaller"
        )
    for folder in folders:
        publish(folder, options.models / folder.name)
    print(f"{size:.1f} MB in {options.models}")


if __name__ == "__main__":
    main()
