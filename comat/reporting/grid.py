"""Grids of images, base beside tuned."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from comat.reporting.pairs import Pair
from comat.storage.images import read_rgb

GREEN, RED, INK, PAPER = (30, 140, 60), (200, 50, 50), (40, 40, 40), (255, 255, 255)
GAP, TEXT, LABEL = 10, 46, 60
COLUMNS = 4
"""Pairs in a row of `pair_grid`."""


def comparison_grid(prompts: Sequence[str], images: Mapping[str, Sequence[np.ndarray]]) -> Image.Image:
    """Every prompt above a row of images for each model; `images` of a model are (H, W, 3), prompt after prompt."""
    drawn = next(iter(images.values()))
    count, size = len(drawn) // len(prompts), drawn[0].shape[0]
    shown = max(size, 128 // size * size)
    block, font = TEXT + len(images) * (shown + GAP), ImageFont.load_default(12)
    label = max(LABEL, *(2 * GAP + int(font.getlength(model)) for model in images))
    sheet = Image.new("RGB", (label + count * (shown + GAP), len(prompts) * block), PAPER)
    draw = ImageDraw.Draw(sheet)
    for number, prompt in enumerate(prompts):
        lines = textwrap.wrap(prompt, max(10, (sheet.width - GAP) // 7))[:3]
        draw.text((GAP, number * block + GAP // 2), "\n".join(lines), INK, font, spacing=1)
        for row, (model, own) in enumerate(images.items()):
            y = number * block + TEXT + row * (shown + GAP)
            draw.text((GAP, y + shown // 2), model, INK, font, anchor="lm")
            for column in range(count):
                picture = Image.fromarray(own[number * count + column])
                picture = picture.resize((shown, shown), Image.Resampling.NEAREST)
                sheet.paste(picture, (label + column * (shown + GAP), y))
    return sheet


def pair_grid(pairs: Sequence[Pair], scale: tuple[float, float] | None) -> Image.Image:
    """The images of each pair side by side, base on the left, the prompt below.

    Frames are green at the upper end of `scale`, red at the lower one, and mixed between; none without a scale.
    """
    size = read_rgb(pairs[0].base.path).shape[0]
    shown = max(size, 128 // size * size)
    width, height = 2 * shown + GAP, shown + TEXT
    rows = -(-len(pairs) // COLUMNS)
    sheet = Image.new("RGB", (COLUMNS * (width + 2 * GAP), rows * (height + GAP) + TEXT // 2), PAPER)
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(12)
    legend = "left: base, right: tuned, same noise" + "; frame: from red to green the score" * (scale is not None)
    draw.text((GAP, 6), legend, INK, font)
    for number, pair in enumerate(pairs):
        x, y = (number % COLUMNS) * (width + 2 * GAP) + GAP, (number // COLUMNS) * (height + GAP) + TEXT // 2
        for offset, shot in zip((0, shown + GAP), (pair.base, pair.tuned), strict=True):
            picture = Image.fromarray(read_rgb(shot.path))
            sheet.paste(picture.resize((shown, shown), Image.Resampling.NEAREST), (x + offset, y))
            frame = [x + offset - 2, y - 2, x + offset + shown + 1, y + shown + 1]
            if scale is not None:
                draw.rectangle(frame, outline=_frame(shot.score, *scale), width=2)
        lines = textwrap.wrap(pair.text, max(10, width // 6))[:3]
        draw.text((x, y + shown + 4), "\n".join(lines), INK, font, spacing=1)
    return sheet


SIDE, GUTTER, BETWEEN, PICTURE = 176, 64, 12, 256
"""Of `pair_columns`, px: an image, the names of the models left of them, what parts two pairs; of
`pair_picture`, an image."""


def pair_columns(pairs: Sequence[Pair]) -> Image.Image:
    """Pairs beside each other, base above, tuned below, each prompt over its own; for a page of any colour."""
    width, head = GUTTER + len(pairs) * (SIDE + BETWEEN), 74
    sheet = Image.new("RGB", (width, head + 2 * (SIDE + BETWEEN)), PAPER)
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(15)
    for row, name in enumerate(pairs[0].shots):
        draw.text((BETWEEN, head + row * (SIDE + BETWEEN) + SIDE // 2), name, INK, font, anchor="lm")
    for number, pair in enumerate(pairs):
        x = GUTTER + number * (SIDE + BETWEEN)
        draw.text((x, head - 8), "\n".join(textwrap.wrap(pair.text, SIDE // 8)[:3]), INK, font, anchor="ld", spacing=2)
        for row, shot in enumerate((pair.base, pair.tuned)):
            sheet.paste(_scaled(shot.path, SIDE), (x, head + row * (SIDE + BETWEEN)))
    return sheet


def pair_picture(pair: Pair) -> Image.Image:
    """The two images of a pair beside each other, base on the left, `PICTURE` px each."""
    sheet = Image.new("RGB", (2 * PICTURE + GAP, PICTURE), PAPER)
    for number, shot in enumerate((pair.base, pair.tuned)):
        sheet.paste(_scaled(shot.path, PICTURE), (number * (PICTURE + GAP), 0))
    return sheet


def _scaled(path: Path, side: int) -> Image.Image:
    """Pixels stay pixels where a small image is enlarged."""
    image = Image.fromarray(read_rgb(path))
    small = image.width < side
    return image.resize((side, side), Image.Resampling.NEAREST if small else Image.Resampling.LANCZOS)


def _frame(value: float, low: float, high: float) -> tuple[int, ...]:
    """The colour of a score; green where all are equal."""
    share = (value - low) / (high - low) if high > low else 1.0
    return tuple(round(red + share * (green - red)) for red, green in zip(RED, GREEN, strict=True))
