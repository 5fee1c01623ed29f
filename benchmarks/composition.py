"""Does a tuned base help a planner? (App. B.2) Prompts of two objects, drawn as they are and by a plan of regions.

    python -m benchmarks.composition [--plans 100] [--base-ratio 0.3]

The plans are those that a planner with no faults would write: each object's description in a half of the image, on the
side that the prompt names. Right is what the oracle finds entirely right, with its 95% interval (Wilson); all four rows
share their noise. It needs a finished run of the shapes world.
"""

from __future__ import annotations

import argparse
import random
from collections.abc import Sequence
from pathlib import Path

from scipy.stats import binomtest

from comat.diffusion.load import load_backbone
from comat.diffusion.lora import in_turn
from comat.finished.compose import composed
from comat.finished.generate import PURPOSE, drawn
from comat.params import load
from comat.samples.regions import Plan
from comat.shapes.world.captions import describe, describe_group
from comat.shapes.world.oracle import judge
from comat.shapes.world.scenes import Spec, sample_spec
from comat.storage.images import to_bytes

SIDES = {"on the left of": (",", False), "on the right of": (",", True), "above": (";", False), "below": (";", True)}
"""Relation → how the image is split, and whether its subject is in the second half."""


def plan_of(spec: Spec, base_ratio: float) -> Plan:
    """The regions of two groups and their relation; without one they stand side by side."""
    split, second = SIDES[spec.relation] if spec.relation else (",", False)
    said = [describe_group(group) for group in spec.groups]
    return Plan(
        base_prompt=describe(spec),
        split_ratio=f"1{split}1",
        regional_prompt=tuple(reversed(said) if second else said),
        base_ratio=base_ratio,
    )


def specs_of(count: int) -> list[Spec]:
    rng = random.Random("plans")
    found: list[Spec] = []
    while len(found) < count:
        spec = sample_spec(rng.choice(["color", "spatial"]), rng)
        if len(spec.groups) == 2 and (spec.relation is None or spec.relation in SIDES):
            found.append(spec)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--params", type=Path, default=Path("params.yaml"))
    parser.add_argument("--data", type=Path, default=Path("data"))
    parser.add_argument("--plans", type=int, default=100)
    parser.add_argument("--base-ratio", type=float, default=0.3)
    options = parser.parse_args()
    params, specs = load(options.params), specs_of(options.plans)
    backbone = load_backbone(params, options.data / "warmup")
    plans = [plan_of(spec, options.base_ratio) for spec in specs]
    prompts = [plan.base_prompt for plan in plans]
    for name in in_turn(backbone, options.data / "train/lora"):
        keys = [(PURPOSE, 0)] * len(plans)
        for way, images in (
            ("as it is", drawn(params, backbone, prompts, [0])),
            ("by regions", composed(params, backbone, plans, keys)),
        ):
            verdicts = [judge(to_bytes(image), spec).correct for image, spec in zip(images, specs, strict=True)]
            print(f"{name:<8}{way:<12}{_share(verdicts)}", flush=True)


def _share(verdicts: Sequence[bool]) -> str:
    low, high = binomtest(sum(verdicts), len(verdicts)).proportion_ci(0.95, method="wilson")
    return f"{100 * sum(verdicts) / len(verdicts):5.1f}%  [{100 * low:.1f}, {100 * high:.1f}]  of {len(verdicts)}"


if __name__ == "__main__":
    main()
