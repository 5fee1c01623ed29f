"""`python -m comat.shapes.recipe.release`: put trained models that keep the promises where git tracks them."""

from __future__ import annotations

import argparse
from pathlib import Path

from comat.errors import UserError, main_guard
from comat.running.stage import publish
from comat.shapes.recipe.promises import CAPTIONER_PROMISES, FLOW_PROMISES, PROMISES, broken
from comat.storage.json_files import read_json

RELEASED = {"base": "base", "captioner": "captioner", "features": "features", "segmenter": "segmenter"}
FLOW_RELEASED = {"flow_base": "flow"}
CAPTIONERS_RELEASED = {"git": "git", "vlm": "vlm"}
"""Name of a trained model → its name where git tracks it."""
WORLDS = {
    "shapes": (RELEASED, PROMISES, 20),
    "flow": (FLOW_RELEASED, FLOW_PROMISES, 12),
    "captioners": (CAPTIONERS_RELEASED, CAPTIONER_PROMISES, 5),
}
"""What a world releases, what it promises, and how many megabytes git may track of it."""


@main_guard
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trained", type=Path, required=True)
    parser.add_argument("--measurements", type=Path, required=True)
    parser.add_argument("--models", type=Path, required=True)
    parser.add_argument("--world", choices=WORLDS, default="shapes")
    options = parser.parse_args()
    released, promises, most = WORLDS[options.world]
    remedy = "measure again (python -m comat.shapes.recipe.measure)"
    lines = broken(read_json(options.measurements, dict[str, object], "measurements of the world", remedy), promises)
    if lines:
        raise UserError(
            f"{options.measurements}: {'; '.join(lines)}; nothing was released: change the recipe "
            "(data/shapes/recipe/params.yaml, comat/shapes/recipe) and train again"
        )
    folders = {options.trained / name: options.models / place for name, place in released.items()}
    size = sum(file.stat().st_size for folder in folders for file in folder.rglob("*")) / 1e6
    if size > most:
        raise UserError(f"{options.trained}: the models take {size:.1f} MB, git may track {most} MB; make one smaller")
    for folder, place in folders.items():
        publish(folder, place)
    print(f"{size:.1f} MB in {options.models}")


if __name__ == "__main__":
    main()
