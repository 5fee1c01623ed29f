"""`python -m comat.shapes.recipe.release`: put the trained models where git tracks them."""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path

RELEASED = ("base", "captioner", "features", "segmenter")
MOST_MEGABYTES = 20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trained", type=Path, required=True)
    parser.add_argument("--models", type=Path, required=True)
    options = parser.parse_args()
    folders = [options.trained / name for name in RELEASED]
    size = sum(file.stat().st_size for folder in folders for file in folder.rglob("*")) / 1e6
    if size > MOST_MEGABYTES:
        raise SystemExit(f"error: the models take {size:.1f} MB; git may track {MOST_MEGABYTES} MB: make one smaller")
    for folder in folders:
        shutil.rmtree(options.models / folder.name, ignore_errors=True)
        shutil.copytree(folder, options.models / folder.name)
    print(f"{size:.1f} MB in {options.models}")


if __name__ == "__main__":
    main()
