"""What the world promises of its models, and whether measurements keep it."""

from __future__ import annotations

from collections.abc import Mapping

PROMISES: Mapping[str, tuple[float, float]] = {
    "oracle.renders": (0.99, 1),
    "oracle.reconstructions": (0.97, 1),
    "captioner.attribute": (0.95, 1),
    "captioner.relation": (0.95, 1),
    "captioner.quantity": (0.95, 1),
    "segmenter.iou": (0.85, 1),
    "segmenter.absent_empty": (0.95, 1),
    "base_training_resolution.dominant.right": (0.80, 1),
    "base_training_resolution.uniform.right": (0.25, 0.60),
}
"""Key of `measurements.json` → lowest and highest share; what each measures: `comat/shapes/recipe/measure.py`."""
FLOW_PROMISES: Mapping[str, tuple[float, float]] = {
    "flow.dominant.right": (0.70, 1),
    "flow.uniform.right": (0.25, 0.60),
}
"""The same of `flow_measurements.json`, by `comat/shapes/recipe/flow_measure.py`.

Ten points less in dominant colours than of the first world's base: this one counts worse (`data/shapes/README.md`).
"""
CAPTIONER_PROMISES: Mapping[str, tuple[float, float]] = {
    f"{name}.{corruption}": (low, 1)
    for name, relation in (("git", 0.75), ("vlm", 0.75), ("vqa", 0.7))
    for corruption, low in (("attribute", 0.9), ("relation", relation), ("quantity", 0.9))
}
"""The same of `captioner_measurements.json`, by `comat/shapes/recipe/captioner_measure.py`; vqa is the vlm when asked
whether a caption is so.

Less than of the captioner of the default run: these are for comparing kinds, and are trained for less.
"""


def broken(measurements: Mapping[str, object], promises: Mapping[str, tuple[float, float]] = PROMISES) -> list[str]:
    """A line for each promise that is not kept, or of which nothing was measured."""
    lines = []
    for key, (low, high) in promises.items():
        value = _at(measurements, key)
        if value is None:
            lines.append(f"{key} was not measured")
        elif not low <= value <= high:
            lines.append(f"{key} is {value:.3f}, expected {low} to {high}")
    return lines


def _at(measurements: object, key: str) -> float | None:
    for name in key.split("."):
        measurements = measurements.get(name) if isinstance(measurements, Mapping) else None
    return measurements if isinstance(measurements, (int, float)) else None
