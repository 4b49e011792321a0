"""Frames with pixel coordinates along their edges, and prompts drawn on them."""

from collections.abc import Iterable

import numpy as np
from PIL import Image, ImageDraw

from longsam.frames import Frame
from longsam.prompts import Prompt

MARGIN = 44
"""Pixels around a frame, for the labels."""

LINES = 12
"""About how many lines the longer side has."""


def with_grid(frame: Frame) -> Image.Image:
    """A frame at its own size, with thin grid lines over it and their coordinates around it.

    Args:
        frame: uint8 RGB, height x width x 3.
    """
    height, width = frame.shape[:2]
    step = grid_step(max(height, width))
    lined = frame.copy()
    for lines in (lined[::step], lined[:, ::step]):
        lines[:] = (lines.astype(np.uint16) * 2 // 3 + 85).astype(np.uint8)
    sheet = Image.new("RGB", (width + 2 * MARGIN, height + 2 * MARGIN), (255, 255, 255))
    sheet.paste(Image.fromarray(lined), (MARGIN, MARGIN))
    pen = ImageDraw.Draw(sheet)
    black = (0, 0, 0)
    for x in range(0, width, step):
        for edge, outwards, anchor in ((MARGIN - 1, -6, "mb"), (MARGIN + height, 6, "mt")):
            pen.line((MARGIN + x, edge, MARGIN + x, edge + outwards), black)
            pen.text(
                (MARGIN + x, edge + 1.5 * outwards), str(x), black, font_size=13, anchor=anchor
            )
    for y in range(0, height, step):
        for edge, outwards, anchor in ((MARGIN - 1, -6, "rm"), (MARGIN + width, 6, "lm")):
            pen.line((edge, MARGIN + y, edge + outwards, MARGIN + y), black)
            pen.text(
                (edge + 1.5 * outwards, MARGIN + y), str(y), black, font_size=13, anchor=anchor
            )
    return sheet


def grid_step(longer_side: int) -> int:
    """Pixels between two lines: 1, 2 or 5 times a power of ten, 10 at least."""
    steps = (n * power for power in (10, 100, 1_000, 10_000, 100_000) for n in (1, 2, 5))
    return next(step for step in steps if longer_side / step <= LINES)


def mark(image: Image.Image, prompts: Iterable[Prompt]) -> None:
    """Draw boxes in yellow, points on an object in green, points beside it in red."""
    pen = ImageDraw.Draw(image)
    size = max(3, max(image.size) // 200)
    for prompt in prompts:
        if prompt.kind == "box":
            x0, y0, x1, y1 = prompt.value
            corners = (min(x0, x1), min(y0, y1), max(x0, x1), max(y0, y1))
            pen.rectangle(corners, outline=(255, 220, 0), width=max(2, size // 2))
        elif "point" in prompt.kind:
            x, y = prompt.value
            colour = (0, 230, 0) if prompt.kind == "point" else (240, 0, 0)
            pen.ellipse((x - size, y - size, x + size, y + size), colour, (255, 255, 255))
