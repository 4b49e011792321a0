"""Masks as polygons: holes are cut open by a slit, and parts are joined by a line.

A polygon is one closed line, so a hole is joined to the outline around it by a line there and back,
which encloses nothing. Parts that do not touch are joined in the same way.
"""

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from longsam.masks.lines import Box
from longsam.masks.record import MaskArray

Ring = npt.NDArray[np.float64]
"""Points (x, y) of a closed line, num_points x 2, each once."""

Raster = Callable[[list[Ring], tuple[int, int]], MaskArray]
"""How a reader fills polygons: returns the pixels of a mask of that height and width."""

TOLERANCES = (1.0, 0.5, 0.25)
"""Pixels by which a line may be simplified, if the mask does not change."""

ENOUGH = 0.99
"""IoU with the mask that a simplified polygon must keep."""

MOST_PIECES = 500
"""At most this many parts and holes of a mask, the largest; a mask with more is noise."""

_LEAST_SHARE = 0.001
"""Share of the mask's area; smaller parts and holes are left out."""


def polygons_of(
    mask: MaskArray, box: Box, raster: Raster, *, reach: float, longest_joint: float | None
) -> list[Ring]:
    """Polygons that fill to a mask.

    Args:
        mask: bool, height x width, not empty.
        box: The box around the mask.
        raster: How they will be filled.
        reach: How far outside the centres of its outer pixels a line runs, in pixels, above 0 and
            below 1.
        longest_joint: The longest line between two parts, as a share of the mask's area in pixels:
            parts further away become separate polygons. None joins all.

    Returns:
        At least one polygon; points are in pixels, (0, 0) is the centre of the first pixel.
    """
    x0, y0, x1, y1 = box
    inside = mask[y0:y1, x0:x1]
    area = int(np.count_nonzero(inside))
    outlines = _outlines(np.pad(inside, 1).astype(np.float32), 1 - reach, area)
    limit = np.inf if longest_joint is None else longest_joint * area
    best: tuple[float, list[Ring]] = (-1.0, [])
    for tolerance in (*TOLERANCES, 0.0):
        rings = _joined([[_simple(ring, tolerance) for ring in part] for part in outlines], limit)
        filled = raster([ring + 1 for ring in rings], (inside.shape[0] + 2, inside.shape[1] + 2))
        score = _iou(filled, np.pad(inside, 1))
        best = max(best, (score, rings), key=lambda found: found[0])
        if score >= ENOUGH:
            break
    return [ring + np.array([x0, y0]) for ring in best[1]]


def _outlines(padded: npt.NDArray[np.float32], level: float, area: int) -> list[list[Ring]]:
    """Each part's outline and those of its holes, the largest part first."""
    try:
        from contourpy import FillType, contour_generator
    except ImportError as error:
        raise ImportError(
            'Polygons need contourpy and OpenCV: `pip install "longsam[export]"`.'
        ) from error
    generator: Any = contour_generator(z=padded, fill_type=FillType.OuterOffset)
    points, offsets = generator.filled(level, 2.0)
    parts: list[tuple[float, list[Ring]]] = []
    for all_points, ends in zip(points, offsets, strict=True):
        rings = [np.asarray(all_points[start : end - 1]) - 1 for start, end in pairwise(ends)]
        holes = [r for r in rings[1:] if _area(r) >= _LEAST_SHARE * area]
        holes = sorted(holes, key=_area, reverse=True)[:MOST_PIECES]
        parts.append((_area(rings[0]), [rings[0], *holes]))
    parts.sort(key=lambda part: part[0], reverse=True)
    kept = [part for size, part in parts[1:MOST_PIECES] if size >= _LEAST_SHARE * area]
    return [parts[0][1], *kept]


def _joined(parts: list[list[Ring]], limit: float) -> list[Ring]:
    """Parts with their holes, as few polygons as possible."""
    rings: list[Ring] = []
    for outline, *holes in parts:
        ring = outline
        for hole in holes:
            ring = _join(ring, hole)[0]
        for at, other in enumerate(rings):
            both, length = _join(other, ring)
            if length <= limit:
                rings[at] = both
                break
        else:
            rings.append(ring)
    return rings


def _join(ring: Ring, other: Ring) -> tuple[Ring, float]:
    """Both joined by a line there and back between their nearest points, and its length."""
    best = (np.inf, 0, 0)
    for start in range(0, len(ring), 1024):  # in blocks, for memory
        block = ring[start : start + 1024]
        squares = ((block[:, None] - other[None]) ** 2).sum(axis=2)
        at = int(squares.argmin())
        best = min(best, (float(squares.flat[at]), start + at // len(other), at % len(other)))
    square, i, j = best
    both = np.concatenate([ring[: i + 1], other[j:], other[: j + 1], ring[i:]])
    return both, float(np.sqrt(square))


def _simple(ring: Ring, tolerance: float) -> Ring:
    if not tolerance:
        return ring
    import cv2

    simple = cv2.approxPolyDP(ring.astype(np.float32), tolerance, True)[:, 0].astype(np.float64)
    return simple if len(simple) >= 3 else ring


def _area(ring: Ring) -> float:
    x, y = ring.T
    return abs(float(x @ np.roll(y, -1) - y @ np.roll(x, -1))) / 2


def _iou(one: MaskArray, other: MaskArray) -> float:
    return float((one & other).sum() / max(1, (one | other).sum()))
