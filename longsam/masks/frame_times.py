"""Frames' time stamps from the index, for the overlay."""

import re
from fractions import Fraction
from pathlib import Path

import numpy as np
import numpy.typing as npt

from longsam.masks.index import read_chunks, read_header
from longsam.masks.lines import INDEX

TICKS = 90_000
"""Ticks per second, as in MPEG: exact for 24, 25, 30, 60 and 29.97 frames a second."""

Ticks = npt.NDArray[np.int64]

_TIME = re.compile(rb'^\{"frame":\d+,.*"time":(-?\d+(?:\.\d+)?(?:e-?\d+)?)[,}]', re.MULTILINE)


def ticks_of_index(folder: Path, rate: Fraction) -> Ticks | None:
    """When each frame of an overlay is shown, in the order in which they were written.

    Args:
        folder: The masks' folder.
        rate: Frames per second, for frames without time stamps.

    Returns:
        Ticks from the first frame on; None if a frame has no time, if times go back (a pass in
        reverse, or frames written again), or if they match the rate.
    """
    path = folder / INDEX
    header, start = read_header(path)
    if header is None:
        return None
    parts: list[npt.NDArray[np.float64]] = []
    for chunk in read_chunks(path, start):
        found = _TIME.findall(chunk.data)
        if len(found) != len(chunk.frames):
            return None
        parts.append(np.array(found, "S40").astype(np.float64))
    return ticks(np.concatenate(parts), rate) if parts else None


def ticks(seconds: npt.NDArray[np.float64], rate: Fraction) -> Ticks | None:
    """As `ticks_of_index`, from known times."""
    if not len(seconds) or not np.isfinite(seconds).all():
        return None
    if np.ptp(seconds) > 1e9:  # no video is that long, but the file is not trusted
        return None
    shown: Ticks = np.rint((seconds - seconds[0]) * TICKS).astype(np.int64)
    if (np.diff(shown) <= 0).any():
        return None
    even = np.arange(len(shown)) * float(TICKS / rate)
    return None if (abs(shown - even) < 2).all() else shown
