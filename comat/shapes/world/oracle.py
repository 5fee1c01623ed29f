"""The oracle: classical vision that reads an image of the world and judges it against a prompt.

Pixels close to a palette colour form cores; connected cores are objects; the pixels around a core (anti-aliased,
blurred) belong to the nearest one. Shape is the template with the best soft intersection over union. No model is
involved, so nothing that is trained against a captioner can learn to please it.
"""

from __future__ import annotations

import functools
import math
from collections import Counter
from dataclasses import dataclass

import numpy as np
from PIL import Image
from scipy import ndimage

from comat.shapes.world.render import coverage
from comat.shapes.world.scenes import BACKGROUND, COLOURS, NOUNS, Group, Object, Spec, holds

PALETTE = np.array([*COLOURS.values()], np.float32)
PAPER = np.array(BACKGROUND, np.float32)
CORE_DISTANCE = 70.0
"""RGB distance (0-441) within which a pixel is taken for a palette colour."""
FOREGROUND_DISTANCE = 55.0
"""RGB distance from the background beyond which a pixel belongs to some object."""
MIN_AREA = 0.008
"""Smallest object, as a share of the image (the smallest star that is drawn covers 0.019)."""
MIN_IOU = 0.70
"""Soft IoU with the best template under which a blob is no known shape."""
TEMPLATE = 24
SMALL, BIG = 0.130, 0.170
"""Radii that part small from unnamed and unnamed from big sizes."""


@dataclass(frozen=True)
class Detection:
    """One object found: centre and radius in fractions of the image side; `noun` is None for an unknown shape."""

    noun: str | None
    colour: str | None
    x: float
    y: float
    r: float


@dataclass(frozen=True)
class Verdict:
    """How an image fulfils a spec.

    `correct`: exactly the objects asked for, with their attributes, counts and relation. `attributes`: every noun asked
    for wears its colour and size. `relation`: true also where none is asked for. `missing`: objects asked for whose
    noun is not in the image.
    """

    correct: bool
    attributes: bool
    relation: bool
    missing: int

    @property
    def ignores(self) -> bool:
        """An object is missing (concept ignorance)."""
        return self.missing > 0

    @property
    def mismatches(self) -> bool:
        """All objects are there, but one has another colour or size (concept mismatching)."""
        return self.missing == 0 and not self.attributes


def read_image(rgb: np.ndarray) -> list[Detection]:
    """Find the objects of an (H, W, 3) uint8 image.

    Raises:
        ValueError: if the array is not an RGB image of bytes.
    """
    if rgb.ndim != 3 or rgb.shape[2] != 3 or rgb.dtype != np.uint8:
        raise ValueError(f"expected an (H, W, 3) uint8 image, got {rgb.shape} {rgb.dtype}")
    pixels = rgb.astype(np.float32)
    foreground = np.linalg.norm(pixels - PAPER, axis=2) > FOREGROUND_DISTANCE
    cores, colours = _cores(pixels, foreground)
    regions, colours = _with_unknown(_grow(cores, foreground), colours, foreground)
    found = []
    for label, colour in enumerate(colours, start=1):
        region = regions == label
        if region.sum() >= MIN_AREA * region.size:
            found.append(_detect(pixels, region, colour))
    return found


def _cores(pixels: np.ndarray, foreground: np.ndarray) -> tuple[np.ndarray, list[str | None]]:
    """Connected areas of palette-coloured pixels: labels (H, W), 0 for none, and the colour of each label."""
    distance = np.linalg.norm(pixels[:, :, None] - PALETTE, axis=3)
    nearest = np.where((distance.min(2) < CORE_DISTANCE) & foreground, distance.argmin(2), -1)
    labels = np.zeros(nearest.shape, np.int32)
    colours: list[str | None] = []
    for index, name in enumerate(COLOURS):
        areas, count = ndimage.label(nearest == index, np.ones((3, 3)))
        sizes = np.bincount(areas.ravel(), minlength=count + 1)
        for area in range(1, count + 1):
            # A rim of blurred pixels can look like a third colour; it is thin, so an erosion leaves nothing of it.
            mask = areas == area
            if (
                sizes[area] >= 0.4 * MIN_AREA * nearest.size
                and ndimage.binary_erosion(mask, np.ones((2, 2), bool)).any()
            ):
                colours.append(name)
                labels[mask] = len(colours)
    return labels, colours


def _grow(cores: np.ndarray, foreground: np.ndarray) -> np.ndarray:
    """Give every foreground pixel near a core to the nearest one."""
    if not cores.any():
        return cores
    reach = max(2.0, cores.shape[0] / 24)
    distance, nearest = ndimage.distance_transform_edt(cores == 0, return_indices=True)
    grown = cores[tuple(nearest)]
    return np.where((distance <= reach) & foreground, grown, 0)


def _with_unknown(
    regions: np.ndarray, colours: list[str | None], foreground: np.ndarray
) -> tuple[np.ndarray, list[str | None]]:
    """Add what is drawn in no palette colour, so that it counts as something that nobody asked for."""
    areas, count = ndimage.label(foreground & (regions == 0))
    for area in range(1, count + 1):
        mask = areas == area
        if mask.sum() >= MIN_AREA * mask.size:
            colours = [*colours, None]
            regions = np.where(mask, len(colours), regions)
    return regions, colours


def _detect(pixels: np.ndarray, region: np.ndarray, colour: str | None) -> Detection:
    side = region.shape[0]
    cover = region.astype(np.float32)
    if colour:
        axis = np.array(COLOURS[colour], np.float32) - PAPER
        cover *= np.clip((pixels - PAPER) @ axis / (axis @ axis), 0, 1)
    ys, xs = np.nonzero(cover >= min(0.5, 0.5 * cover.max()))
    y0, y1, x0, x1 = ys.min(), ys.max() + 1, xs.min(), xs.max() + 1
    crop = np.asarray(Image.fromarray(cover[y0:y1, x0:x1]).resize((TEMPLATE, TEMPLATE), Image.Resampling.BOX))
    ious = {noun: float(np.minimum(crop, t).sum() / np.maximum(crop, t).sum()) for noun, t in _templates().items()}
    noun = max(ious, key=ious.__getitem__)
    square = 0.65 < (y1 - y0) / (x1 - x0) < 1.55
    known = colour is not None and square and ious[noun] >= MIN_IOU
    return Detection(
        noun if known else None,
        colour,
        float((x0 + x1) / 2 / side),
        float((y0 + y1) / 2 / side),
        math.sqrt(float(cover.sum()) / region.size / _areas()[noun]),
    )


@functools.cache
def _templates() -> dict[str, np.ndarray]:
    """Each shape's coverage inside its bounding box, (TEMPLATE, TEMPLATE) float32."""
    result = {}
    for noun in NOUNS:
        full = coverage(Object(noun, "black", 0.5, 0.5, 0.35), 256)
        ys, xs = np.nonzero(full > 0.5)
        crop = full[ys.min() : ys.max() + 1, xs.min() : xs.max() + 1]
        result[noun] = np.asarray(Image.fromarray(crop).resize((TEMPLATE, TEMPLATE), Image.Resampling.BOX))
    return result


@functools.cache
def _areas() -> dict[str, float]:
    """Each shape's area in units of its squared radius."""
    return {noun: float(coverage(Object(noun, "black", 0.5, 0.5, 0.35), 256).mean()) / 0.35**2 for noun in NOUNS}


def _size(radius: float) -> str | None:
    return "small" if radius < SMALL else "big" if radius > BIG else None


def judge(rgb: np.ndarray, spec: Spec) -> Verdict:
    """Judge an (H, W, 3) uint8 image against what a prompt asks for; see `Verdict`."""
    found = read_image(rgb)
    nouns = Counter(d.noun for d in found)
    members = [[d for d in found if _fits(d, group)] for group in spec.groups]
    wanted: Counter[str] = Counter()
    for group in spec.groups:
        wanted[group.noun] += group.count
    missing = sum(max(0, count - nouns[noun]) for noun, count in wanted.items())
    attributes = all(len(own) >= group.count for group, own in zip(spec.groups, members, strict=True))
    relation = spec.relation is None or (
        bool(members[0] and members[1])
        and all(holds(spec.relation, (a.x, a.y), (b.x, b.y)) for a in members[0] for b in members[1])
    )
    return Verdict(
        correct=attributes and relation and len(found) == spec.total,
        attributes=attributes,
        relation=relation,
        missing=missing,
    )


def _fits(d: Detection, group: Group) -> bool:
    return d.noun == group.noun and group.colour in (None, d.colour) and group.size in (None, _size(d.r))
