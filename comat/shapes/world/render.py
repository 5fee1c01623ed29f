"""The renderer: a scene as an RGB image with the exact mask of every object."""

from __future__ import annotations

import math

import numpy as np
from PIL import Image, ImageDraw

from comat.shapes.world.scenes import BACKGROUND, COLOURS, Object, Scene

SUPERSAMPLING = 4
RING_HOLE = 0.5
"""Radius of a ring's hole, relative to the ring's own."""


def render(scene: Scene, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Draw `scene` at `size` pixels.

    Returns:
        rgb: (size, size, 3) uint8.
        masks: (objects, size, size) bool, a pixel being inside where at least half of it is covered.
    """
    masks = [coverage(o, size) for o in scene.objects]
    image = np.empty((size, size, 3), np.float32)
    image[:] = BACKGROUND
    for o, mask in zip(scene.objects, masks, strict=True):
        image += mask[..., None] * (np.asarray(COLOURS[o.colour], np.float32) - image)
    empty = np.zeros((0, size, size), bool)
    return np.rint(image).astype(np.uint8), np.stack(masks) >= 0.5 if masks else empty


def coverage(o: Object, size: int) -> np.ndarray:
    """(size, size) float32 in [0, 1]: the share of each pixel that the object covers."""
    side = size * SUPERSAMPLING
    canvas = Image.new("L", (side, side), 0)
    draw = ImageDraw.Draw(canvas)
    if o.noun in ("ball", "ring"):
        draw.ellipse(_box(o, 1.0, side), fill=255)
        if o.noun == "ring":
            draw.ellipse(_box(o, RING_HOLE, side), fill=0)
    else:
        draw.polygon([((o.x + o.r * u) * side, (o.y + o.r * v) * side) for u, v in OUTLINES[o.noun]], fill=255)
    return np.asarray(canvas.resize((size, size), Image.Resampling.BOX), np.float32) / 255


def _box(o: Object, scale: float, side: int) -> list[float]:
    r = o.r * scale
    return [(o.x - r) * side, (o.y - r) * side, (o.x + r) * side, (o.y + r) * side]


def _star(points: int = 5, inner: float = 0.48, outer: float = 1.2) -> list[tuple[float, float]]:
    angles = [math.pi * i / points for i in range(2 * points)]
    radii = [outer if i % 2 == 0 else inner for i in range(2 * points)]
    return [(r * math.sin(a), -r * math.cos(a)) for r, a in zip(radii, angles, strict=True)]


_ARM, _REACH = 0.38, 1.1
OUTLINES: dict[str, list[tuple[float, float]]] = {
    "cube": [(-0.92, -0.92), (0.92, -0.92), (0.92, 0.92), (-0.92, 0.92)],
    "cone": [(0.0, -1.1), (1.1, 0.9), (-1.1, 0.9)],
    "star": _star(),
    "cross": [
        (-_ARM, -_REACH), (_ARM, -_REACH), (_ARM, -_ARM), (_REACH, -_ARM), (_REACH, _ARM), (_ARM, _ARM),
        (_ARM, _REACH), (-_ARM, _REACH), (-_ARM, _ARM), (-_REACH, _ARM), (-_REACH, -_ARM), (-_ARM, -_ARM),
    ],
}  # fmt: skip
"""Polygon outlines around the centre, in units of the radius."""
