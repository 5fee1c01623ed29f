"""`python -m comat.shapes.recipe.release`: put trained models that keep the promises where git tracks them."""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path

from comat.errors import UserError, main_guard
from comat.shapes.recipe.promises import check

RELEASED = ("base", "captioner", "features", "segmenter")
MOST_MEGABYTES = 20


@main_guard
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trained", type=Path, required=True)
    parser.add_argument("--measurements", type=Path, required=True)
    parser.add_argument("--models", type=Path, required=True)
    options = parser.parse_args()
    check(options.measurements)
    folders = [options.trained / name for name in RELEASED]
    size = sum(file.stat().st_size for folder in folders for file in folder.rglob("*")) / 1e6
    if size > MOST_MEGABYTES:
        raise UserError(
            f"{options.trained}: the models take {size:.1f} MB, git may track {MOST_MEGABYTES} MB; make one smaller"
        )
    for folder in folders:
        place, part = options.models / folder.name, options.models / f"{folder.name}.part"
        shutil.rmtree(part, ignore_errors=True)
        shutil.copytree(folder, part)
        shutil.rmtree(place, ignore_errors=True)
        part.rename(place)
    print(f"{size:.1f} MB in {options.models}")


if __name__ == "__main__":
    main()
